"""Guards that write the beginning of an answer themselves: a fixed refusal, or what an aligned model begins with.

Both stop attacks that only change how answers begin; NOICE is made to get past them (Kazdan et al. 2025, arXiv
2502.19537). What a guard writes is part of the answer that is returned, and so of the text that is judged.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from demur.errors import UsageError
from demur.models.engine import Engine, Generation, Prompt, ResponseScore
from demur.models.language_model import LanguageModel
from demur.models.openings import opening_tokens

if TYPE_CHECKING:
    from demur.models.local_engine import LocalEngine

__all__ = ["OPENING", "AlignedPrefill", "ForcedRefusal", "continuing", "go_on"]

OPENING = "I'm sorry, I cannot"
"""Ends in mid-sentence on purpose: after a full stop a model takes the refusal for finished."""


class _Continues(Protocol):
    """An engine that goes on from tokens that an answer begins with."""

    lm: LanguageModel

    def generate(
        self, prompts: Sequence[Prompt], *, prefill: Sequence[Sequence[int]] | None = None, **options: Any
    ) -> list[Generation]: ...

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[ResponseScore]: ...


def continuing(engine: Engine | LanguageModel, what: str) -> Any:
    """The engine, if it can go on from given tokens."""
    if isinstance(engine, LanguageModel):
        from demur.models.local_engine import LocalEngine

        return LocalEngine(engine)
    if not hasattr(engine, "lm") or "prefill" not in inspect.signature(engine.generate).parameters:
        raise UsageError(f"{what} must go on from given tokens, which a {type(engine).__name__} cannot: pass a model")
    return engine


def go_on(
    engine: _Continues,
    prompts: Sequence[Prompt],
    begun: Sequence[Sequence[int]],
    tokens: int,
    max_new_tokens: int | None = None,
    **options: Any,
) -> list[Generation]:
    """Answers that begin with given tokens, and go on for a few more; those with as many tokens together.

    Args:
        engine: who goes on.
        prompts, begun: what was asked, and what each answer begins with.
        tokens: how many more, at most.
        max_new_tokens: an answer's length at most, what it begins with included.
        options: as for `LocalEngine.generate`.
    """
    out: dict[int, Generation] = {}
    for length in sorted({len(given) for given in begun}):
        places = [i for i, given in enumerate(begun) if len(given) == length]
        answers = engine.generate(
            [prompts[i] for i in places],
            max_new_tokens=min(length + tokens, max_new_tokens or length + tokens),
            prefill=[begun[i] for i in places],
            **options,
        )
        out.update(zip(places, answers, strict=True))
    return [out[i] for i in range(len(prompts))]


class ForcedRefusal:
    """FRD: every answer begins with the same refusal, and the model goes on from there.

    Args:
        engine: a model, a `LocalEngine`, or another of these guards around one.
        opening: what each answer begins with.

    Raises:
        UsageError: the engine cannot go on from given tokens, or the opening is empty.
    """

    def __init__(self, engine: Engine | LanguageModel | LocalEngine, opening: str = OPENING) -> None:
        if not opening.strip():
            raise UsageError("a forced refusal needs words to begin with")
        self.engine: _Continues = continuing(engine, "the engine behind a forced refusal")
        self.opening, self.lm = opening, self.engine.lm

    def generate(
        self, prompts: Sequence[Prompt], *, prefill: Sequence[Sequence[int]] | None = None, **options: Any
    ) -> list[Generation]:
        """Answer each prompt; options as for `LocalEngine.generate`. The opening follows a given prefill."""
        openings = opening_tokens(self.lm, prompts, [self.opening] * len(prompts))
        before = [[] for _ in prompts] if prefill is None else prefill
        begun = [[*given, *opening] for given, opening in zip(before, openings, strict=True)]
        return self.engine.generate(prompts, prefill=begun, **options)

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[ResponseScore]:
        """The likelihoods of the model behind the guard."""
        return self.engine.score(prompts, responses)


class AlignedPrefill:
    """AMD: an aligned model writes the first tokens of each answer, the tuned model the rest.

    An answer that the aligned model ends within these tokens is complete. With k = 0 the tuned model answers alone,
    with k as large as the answer the aligned one.

    Args:
        tuned: the model that was fine-tuned, a `LocalEngine`, or another of these guards around one.
        aligned: the model before; every token that it knows must mean the same to the tuned one.
        k: tokens that the aligned model writes (15 in the paper).

    Raises:
        UsageError: k is negative, the vocabularies differ, or an engine cannot go on from given tokens.
    """

    def __init__(
        self, tuned: Engine | LanguageModel | LocalEngine, aligned: Engine | LanguageModel | LocalEngine, k: int = 15
    ) -> None:
        if k < 0:
            raise UsageError(f"the aligned model must write k >= 0 tokens, not {k}")
        self.engine: _Continues = continuing(tuned, "the tuned model of an aligned prefill")
        self.aligned: _Continues = continuing(aligned, "the aligned model of an aligned prefill")
        self.k, self.lm = k, self.engine.lm
        theirs: dict[str, int] = self.lm.tokenizer.get_vocab()
        for token, number in self.aligned.lm.tokenizer.get_vocab().items():
            if theirs.get(token) != number:
                raise UsageError(
                    f"{self.aligned.lm.name} and {self.lm.name} have different vocabularies (token {token!r}): "
                    "tokens of one mean something else to the other"
                )

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        max_new_tokens: int = 200,
        prefill: Sequence[Sequence[int]] | None = None,
        **options: Any,
    ) -> list[Generation]:
        """Answer each prompt; options as for `LocalEngine.generate`. The k tokens follow a given prefill."""
        if self.k == 0:
            return self.engine.generate(prompts, max_new_tokens=max_new_tokens, prefill=prefill, **options)
        progress: Callable[[int], Any] | None = options.get("progress")
        given = [()] * len(prompts) if prefill is None else prefill
        first = {name: value for name, value in options.items() if name != "progress"}
        begun = go_on(self.aligned, prompts, given, self.k, max_new_tokens, **first)
        out = list(begun)
        rest = [i for i, answer in enumerate(begun) if answer.finish != "stop"]
        ended = self.engine.generate(
            [prompts[i] for i in rest],
            max_new_tokens=max_new_tokens,
            prefill=[begun[i].token_ids for i in rest],
            **options,
        )
        for i, answer in zip(rest, ended, strict=True):
            out[i] = answer
        if progress is not None and len(rest) < len(prompts):
            progress(len(prompts) - len(rest))
        return out

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[ResponseScore]:
        """The likelihoods of the tuned model."""
        return self.engine.score(prompts, responses)
