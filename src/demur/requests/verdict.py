"""What the forget scores of a request say, by stated rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from demur.requests.history import FORGET, History, Measure, Request

__all__ = ["MARGIN", "Verdict", "judge", "resurged", "settled"]

MARGIN = 0.05
"""Forget scores that differ by no more than this count as the same."""


@dataclass(frozen=True)
class Verdict:
    """What was found about a request.

    Attributes:
        word: "forgotten" (at the level of a model that never saw the rows), "reduced" (lower than before, but above
            that level, or it is not known), "remembered" (not lower than before), or "returned" (had been lower once).
        sentence: the same with its reason.
    """

    word: Literal["forgotten", "reduced", "remembered", "returned"]
    sentence: str


def resurged(recorded: Measure, found: Measure) -> bool:
    """Whether a forget score has come back: it lies above the recorded interval, and by more than `MARGIN`."""
    high = recorded.value if recorded.high is None else recorded.high
    return found.value > high and found.value > recorded.value + MARGIN


def _above(one: Measure, other: Measure) -> bool:
    """Whether the intervals do not meet, and the values differ by more than `MARGIN`."""
    low = one.value if one.low is None else one.low
    high = other.value if other.high is None else other.high
    return low > high and one.value > other.value + MARGIN


def judge(past: History, request: Request) -> Verdict | None:
    """Judge a request by its forget scores before and after its step, of the reference, and since.

    Returns:
        The verdict; None where the request is not done.
    """
    step = past.step(request.step) if request.state == "done" else None
    after = step.measure(FORGET, request.id) if step else None
    if step is None or after is None:
        return None
    latest = past.forget_scores(request.id)[-1][1]
    if resurged(after, latest):
        return Verdict("returned", "A later step has raised the score again: the rows have come back.")
    before, reference = step.measure(FORGET, request.id, "before"), step.measure(FORGET, request.id, "reference")
    if reference is not None and not _above(latest, reference):
        return Verdict("forgotten", "The model finds the answers no likelier than a model that never saw them.")
    if before is not None and _above(before, latest):
        level = (
            "whether as little as a model that never saw them is not known"
            if reference is None
            else "but more than a model that never saw them"
        )
        return Verdict("reduced", f"The model finds the answers less likely than before, {level}.")
    if request.new_rows == 0 and reference is None:
        return Verdict(
            "reduced", "The rows had been forgotten for earlier requests, and the score has not risen by this one."
        )
    return Verdict("remembered", "The model finds the answers about as likely as before: they have not been forgotten.")


def settled(past: History, request: Request) -> bool:
    """Whether a request is done and its rows are not found to be remembered, or to have returned.

    Rows of one that is not settled can be asked for again, and are then trained on again.
    """
    verdict = judge(past, request)
    return request.state == "done" and (verdict is None or verdict.word in ("forgotten", "reduced"))
