"""Guarding an engine whose tokens cannot be seen: its answers are read, and asked for again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from demur.models import Engine, Generation

if TYPE_CHECKING:
    from demur.data.rows import Prompt

__all__ = ["answer_as_text"]


def answer_as_text(
    engine: Engine,
    prompts: Sequence[Prompt],
    forbidden: Sequence[Callable[[str], bool]],
    refusal: str,
    resamples: int,
    options: Mapping[str, Any],
) -> list[Generation]:
    """Ask as often as it takes for answers that say nothing forbidden; refuse where none comes.

    Args:
        engine: answers.
        prompts: what to ask.
        forbidden: for each prompt, whether a text says something that it must not.
        refusal: given in place of an answer; nothing is given where it says something forbidden itself.
        resamples: how often an answer is asked for again, at a temperature of at least 1.
        options: of `Engine.generate`.

    Returns:
        One answer a prompt; errors are passed on as they are.
    """
    out = [Generation("" if says(refusal) else refusal, (), "stop") for says in forbidden]
    left = list(range(len(prompts)))
    for attempt in range(resamples + 1):
        if not left:
            break
        again = {"temperature": max(options["temperature"], 1.0), "seed": options["seed"] + attempt}
        asked = {**options, **again} if attempt else dict(options)
        answers = engine.generate([prompts[i] for i in left], **asked)
        still = []
        for i, answer in zip(left, answers, strict=True):
            if forbidden[i](answer.text):
                still.append(i)
            else:
                out[i] = answer
        left = still
    return out
