"""A guard in mid-reply: at several depths of a reply something is asked again whether the reply should go on.

A refusal that stands at a reply's first tokens only is got past by whoever writes those tokens, or teaches a model to
go on after them (Kazdan et al. 2025, arXiv 2502.19537). Asked again further on, an aligned model still refuses (Zhang
et al. 2025, arXiv 2510.18081): its turn is ended in a fork of the reply and opened anew.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from demur.errors import UsageError
from demur.guards.prefill import continuing, go_on
from demur.models.chat import encode, encode_prompts
from demur.models.engine import Engine, Generation, Prompt, ResponseScore
from demur.models.language_model import LanguageModel

if TYPE_CHECKING:
    from demur.models.local_engine import LocalEngine

__all__ = ["REFUSAL", "Check", "Fork", "Recheck", "RecheckedGeneration", "Reconsider", "Verdict", "reopening"]

REFUSAL = "I'm sorry, I cannot help with that."
"""What stands in the place of a reply that was cut."""

PHRASES = ("i can't", "i cannot")
"""What a refusal holds somewhere, where nothing better is known; few, since each finds itself in ordinary text too."""


@dataclass(frozen=True)
class Fork:
    """A reply under way, at a depth where it is asked whether it should go on.

    Attributes:
        prompt: what was asked.
        tokens: the reply so far, whoever wrote its beginning.
        text: the same in words.
    """

    prompt: Prompt
    tokens: tuple[int, ...]
    text: str


@dataclass(frozen=True)
class Verdict:
    """What a check finds of a fork.

    Attributes:
        refuses: whether the reply is to be cut.
        score: how sure it is, where it knows.
    """

    refuses: bool
    score: float = float("nan")


Check = Callable[[Sequence[Fork]], Sequence[Verdict]]
"""Forks of many replies → a verdict on each, in order: a model asked again, a probe, or a judge of the text."""


@dataclass(frozen=True)
class RecheckedGeneration(Generation):
    """A reply with what the checks found.

    Attributes:
        cut: depth in tokens at which a check refused, and the refusal took the reply's place; None where none did.
        checks: verdicts on the reply, one a depth, up to the one that refused.
    """

    cut: int | None = None
    checks: tuple[Verdict, ...] = ()


class Recheck:
    """Every reply is checked at several depths, and replaced by a refusal where a check refuses.

    The reply itself is written as if nobody asked, so that one that passes is the engine's own, token for token. All
    replies that reach their next depth are checked together; one that was cut is not checked again.

    Args:
        engine: a model, a `LocalEngine`, or another of these guards around one.
        check: who is asked.
        every: tokens between two checks (the first stands after as many), or "sentence": at every sentence's end, the
            reply's own end among them. A reply shorter than `every` tokens is not checked.
        refusal: what takes the place of a reply that is cut.

    Raises:
        UsageError: the engine's tokens cannot be seen, `every` is below 1, or the refusal is empty.
    """

    def __init__(
        self,
        engine: Engine | LanguageModel | LocalEngine,
        check: Check,
        every: int | Literal["sentence"] = 25,
        refusal: str = REFUSAL,
    ) -> None:
        if every != "sentence" and (isinstance(every, str) or every < 1):
            raise UsageError(f"a reply is checked every k >= 1 tokens or at each 'sentence', not {every!r}")
        if not refusal.strip():
            raise UsageError("a reply that is cut needs a refusal in its place")
        self.engine = continuing(engine, "the engine behind a recheck")
        self.check, self.every, self.refusal, self.lm = check, every, refusal, self.engine.lm

    def generate(
        self, prompts: Sequence[Prompt], *, prefill: Sequence[Sequence[int]] | None = None, **options: Any
    ) -> list[Generation]:
        """Answer each prompt; options as for `LocalEngine.generate`. A prefill is part of the reply, and is checked.

        Returns:
            A `RecheckedGeneration` a prompt.
        """
        answers = self.engine.generate(prompts, prefill=prefill, **options)
        depths = [self._depths(answer.token_ids) for answer in answers]
        verdicts: list[list[Verdict]] = [[] for _ in answers]
        going = [i for i, found in enumerate(depths) if found]
        while going:
            forks = [self._fork(prompts[i], answers[i].token_ids[: depths[i][len(verdicts[i])]]) for i in going]
            for i, verdict in zip(going, self.check(forks), strict=True):
                verdicts[i].append(verdict)
            going = [i for i in going if not verdicts[i][-1].refuses and len(verdicts[i]) < len(depths[i])]
        out: list[Generation] = []
        for prompt, answer, at, found in zip(prompts, answers, depths, verdicts, strict=True):
            if found and found[-1].refuses:
                (said,) = encode(self.lm, [prompt], [self.refusal])
                cut = at[len(found) - 1]
                out.append(RecheckedGeneration(self.refusal, tuple(said.label_ids), "stop", None, cut, tuple(found)))
            else:
                out.append(
                    RecheckedGeneration(answer.text, answer.token_ids, answer.finish, answer.error, checks=tuple(found))
                )
        return out

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[ResponseScore]:
        """The likelihoods of the model behind the guard."""
        scores: list[ResponseScore] = self.engine.score(prompts, responses)
        return scores

    def _depths(self, tokens: Sequence[int]) -> list[int]:
        """The depths at which a reply is checked; the token that ends it is none of the reply."""
        length = len(tokens) - (bool(tokens) and tokens[-1] in self.lm.tokenizer.all_special_ids)
        if isinstance(self.every, int):
            return list(range(self.every, length + 1, self.every))
        ends = [i for i in range(1, length) if _ENDS.search(self.lm.tokenizer.decode([tokens[i - 1]]))]
        return [*ends, length] if length else []

    def _fork(self, prompt: Prompt, tokens: tuple[int, ...]) -> Fork:
        return Fork(prompt, tokens, str(self.lm.tokenizer.decode(list(tokens), skip_special_tokens=True)).strip())


_ENDS = re.compile(r"[.!?…][\"'”’)]*\s*$|\n")


class Reconsider:
    """A check: a model's turn is ended where the reply stands and another is opened; does it refuse now?

    Args:
        model: who is asked, most often the model before it was fine-tuned; a model or a `LocalEngine`. Its tokens must
            be those of the guarded one.
        header: what stands between the reply and what the model says next: "turn" or "question" (see `reopening`), or
            tokens of your own. With none, (), it goes on in mid-reply, where few models refuse.
        lookahead: tokens that it says, greedily (20 in the paper).
        refuses: tells a refusal from other text; by default, text that holds one of a few phrases.

    Raises:
        UsageError: `lookahead` is below 1, the header is none of these, or the model cannot go on from given tokens.
    """

    def __init__(
        self,
        model: Engine | LanguageModel | LocalEngine,
        header: Literal["turn", "question"] | Sequence[int] = "turn",
        lookahead: int = 20,
        refuses: Callable[[str], bool] | None = None,
    ) -> None:
        if lookahead < 1:
            raise UsageError(f"to tell whether it refuses, a model must say at least 1 token, not {lookahead}")
        if isinstance(header, str) and header not in ("turn", "question"):
            raise UsageError(f"a reply is reopened with a new 'turn', the 'question' again, or tokens, not {header!r}")
        self.engine = continuing(model, "the model that is asked again")
        self.header, self.lookahead, self.refuses = header, lookahead, refuses or _says_no

    def __call__(self, forks: Sequence[Fork]) -> list[Verdict]:
        """A verdict on each fork.

        Raises:
            UsageError: a reply leaves no room in the model's context.
        """
        lm, prompts = self.engine.lm, [fork.prompt for fork in forks]
        header = self.header
        headers = reopening(lm, prompts, header) if isinstance(header, str) else [tuple(header)] * len(forks)
        begun = [(*fork.tokens, *header) for fork, header in zip(forks, headers, strict=True)]
        if lm.context is not None:
            longest = max(len(p) + len(b) for p, b in zip(encode_prompts(lm, prompts), begun, strict=True))
            if longest + 1 > lm.context:
                raise UsageError(
                    f"to ask again in mid-reply takes {longest + 1} tokens, more than the {lm.context} that {lm.name} "
                    "can read: lower max_new_tokens"
                )
        said = go_on(self.engine, prompts, begun, self.lookahead)
        texts = [
            str(lm.tokenizer.decode(list(answer.token_ids[len(tokens) :]), skip_special_tokens=True)).strip()
            for answer, tokens in zip(said, begun, strict=True)
        ]
        return [Verdict(self.refuses(text)) for text in texts]


def reopening(
    lm: LanguageModel, prompts: Sequence[Prompt], what: Literal["turn", "question"] = "turn"
) -> list[tuple[int, ...]]:
    """The tokens that end a reply to each prompt and open another.

    Args:
        lm: gives tokenizer and template.
        prompts: what was asked.
        what: "turn" opens the next turn of the assistant, as the chat template writes it; "question" asks the same once
            more first, and so does "turn" where the template writes nothing there or knows no turns.
    """
    if what == "turn" and lm.template == "chat":
        mark = "mark"
        content = mark if lm.images is None else [{"type": "text", "text": mark}]
        turns: Any = [{"role": role, "content": content} for role in ("user", "assistant")]
        shown = str(lm.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
        opening = shown[shown.rindex(mark) + len(mark) :]
        header: list[int] = lm.tokenizer(opening, add_special_tokens=False)["input_ids"]
        if header and header[-1] != lm.tokenizer.eos_token_id:
            return [tuple(header)] * len(prompts)
    end, begin = lm.tokenizer.eos_token_id, lm.tokenizer.bos_token_id
    return [(end, *ids[bool(ids) and ids[0] == begin :]) for ids in encode_prompts(lm, prompts)]


def _says_no(text: str) -> bool:
    lower = text.casefold().replace("’", "'")
    return any(phrase in lower for phrase in PHRASES)
