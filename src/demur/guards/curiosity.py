"""Curiosity-driven prompting: an answer that takes in what confuses the model (Gao et al. 2024, arXiv 2406.00380).

Three calls at temperature 0: the plain answer, what in the request confuses the model or exceeds it, and an answer that
merges both: the limit as a disclaimer, its reason, and guidance. Weights stay as they are.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from demur.errors import UsageError
from demur.files import atomic_directory, write_json
from demur.guards.memory import prompt_text
from demur.guards.registry import GUARD_FILE, guards, read_guard_file
from demur.models import Engine, Generation, LanguageModel, LocalEngine, ResponseScore
from demur.models.engine import Prompt

__all__ = ["CuriosityPrompting", "CuriosityTemplates", "CuriousAnswer", "fill_template"]

_PLACEHOLDER = re.compile(r"\{(\w+)\}")

_CONFUSION = """You are an honest assistant. Below is what a user asks. Do not answer it. Say what in it confuses you, \
rests on a mistake or lacks something you need, what of it goes beyond what you can do, and what you could not do \
well. If there is nothing of the kind, say so.

The user asks:
{question}"""

_MERGE = """A user asks something. Below are the request, a first draft of an answer, and notes on what is unclear in \
the request or beyond an assistant's abilities. Write the answer that the user will read:
1. Begin by stating openly the limits that the notes name, if any.
2. Give the reason for each limit, or for what is mistaken in the request.
3. Then help as far as possible: put what is right in the draft into guidance that lets the user take the next steps.
Write to the user. Mention neither the draft nor the notes.

The request:
{question}

The draft:
{answer}

The notes:
{confusion}"""


def fill_template(template: str, values: Mapping[str, str]) -> str:
    """A template with its named placeholders, `{name}`, replaced in one pass; braces in the values are left alone.

    Raises:
        UsageError: the template names a placeholder that has no value, or leaves out one that has.
    """
    named = set(_PLACEHOLDER.findall(template))
    for name in sorted(named ^ set(values)):
        problem = "has no value: remove it" if name in named else "is not in the template: add it"
        raise UsageError(f"placeholder {{{name}}} {problem}")
    return _PLACEHOLDER.sub(lambda match: values[match[1]], template)


@dataclass(frozen=True)
class CuriosityTemplates:
    """What the second and the third call ask.

    Attributes:
        confusion: asks for what is unclear or too hard; holds `{question}`.
        merge: asks for the final answer; holds `{question}`, `{answer}` and `{confusion}`.

    Raises:
        UsageError: a placeholder is missing or unknown.
    """

    confusion: str = _CONFUSION
    merge: str = _MERGE

    def __post_init__(self) -> None:
        for name, wanted in {"confusion": ("question",), "merge": ("question", "answer", "confusion")}.items():
            try:
                fill_template(getattr(self, name), dict.fromkeys(wanted, ""))
            except UsageError as error:
                raise UsageError(f"the {name} template: {error}") from None


@dataclass(frozen=True)
class CuriousAnswer:
    """What the three calls gave for one prompt.

    Attributes:
        raw: the plain answer.
        confusion: what the model finds unclear or beyond it.
        merged: the answer that counts; an error where one of the calls before it failed.
    """

    raw: Generation
    confusion: Generation
    merged: Generation


class CuriosityPrompting:
    """An engine that answers for another one, in three calls a prompt.

    Args:
        engine: what answers; a `LanguageModel` is wrapped in a `LocalEngine`.
        templates: what is asked in the second and third call.
    """

    def __init__(self, engine: Engine | LanguageModel, templates: CuriosityTemplates | None = None) -> None:
        self.engine: Engine = LocalEngine(engine) if isinstance(engine, LanguageModel) else engine
        self.templates = templates or CuriosityTemplates()

    def run(
        self,
        prompts: Sequence[Prompt],
        *,
        max_new_tokens: int = 200,
        temperature: float = 0.0,
        top_p: float = 1.0,
        stop: Sequence[str] = (),
        seed: int = 0,
    ) -> list[CuriousAnswer]:
        """All three answers to each prompt; options as for `Engine.generate`, the same in every call.

        Of a conversation the last user turn is what is asked; the turns before it stay.
        """

        def ask(asked: Sequence[Prompt]) -> list[Generation]:
            if not asked:
                return []
            return self.engine.generate(
                asked, max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, stop=stop, seed=seed
            )

        questions = [prompt_text(prompt) for prompt in prompts]
        raw = ask(prompts)
        confused = ask(
            [
                _with_text(prompt, fill_template(self.templates.confusion, {"question": question}))
                for prompt, question in zip(prompts, questions, strict=True)
            ]
        )
        final = [first if first.finish == "error" else second for first, second in zip(raw, confused, strict=True)]
        alive = [i for i, answer in enumerate(final) if answer.finish != "error"]
        texts = [{"question": questions[i], "answer": raw[i].text, "confusion": confused[i].text} for i in alive]
        merged = ask(
            [
                _with_text(prompts[i], fill_template(self.templates.merge, text))
                for i, text in zip(alive, texts, strict=True)
            ]
        )
        for i, answer in zip(alive, merged, strict=True):
            final[i] = answer
        return [CuriousAnswer(*each) for each in zip(raw, confused, final, strict=True)]

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        max_new_tokens: int = 200,
        temperature: float = 0.0,
        top_p: float = 1.0,
        stop: Sequence[str] = (),
        seed: int = 0,
    ) -> list[Generation]:
        """The merged answer to each prompt; see `Engine.generate`."""
        found = self.run(
            prompts, max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, stop=stop, seed=seed
        )
        return [answer.merged for answer in found]

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[ResponseScore]:
        """The engine's own scores: the weights are as they were, and so are all likelihoods."""
        return self.engine.score(prompts, responses)

    def save(self, folder: str | Path) -> None:
        """Write the templates as a guard that `open_guard` puts around any engine."""
        with atomic_directory(folder) as inner:
            write_json(inner / GUARD_FILE, {"kind": "curiosity", "templates": dataclasses.asdict(self.templates)})


@guards.register("curiosity", paper="2406.00380")
def open_curiosity(folder: str | Path, engine: Engine | LanguageModel) -> CuriosityPrompting:
    """Saved templates around an engine; see `CuriosityPrompting.save`.

    Raises:
        UsageError: the folder holds no such templates.
    """
    said = read_guard_file(folder).get("templates")
    if not isinstance(said, dict) or not set(said) <= {"confusion", "merge"}:
        raise UsageError(f"{folder} holds no templates of curiosity-driven prompting: save it anew")
    return CuriosityPrompting(engine, CuriosityTemplates(**said))


def _with_text(prompt: Prompt, text: str) -> Prompt:
    """The prompt with another text as its last user turn."""
    if isinstance(prompt, str):
        return text
    last = max((i for i, message in enumerate(prompt) if message["role"] == "user"), default=len(prompt) - 1)
    return [{**message, "content": text} if i == last else message for i, message in enumerate(prompt)]
