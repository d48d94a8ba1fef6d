from __future__ import annotations

from datetime import UTC, datetime

import pytest

from demur.requests import History, Measure, Request, Step
from demur.requests.history import FORGET
from demur.requests.verdict import judge, resurged

AT = datetime(2026, 1, 1, tzinfo=UTC)


def score(value: float, role: str = "run", half: float | None = 0.02) -> Measure:
    ends = (None, None) if half is None else (value - half, value + half)
    return Measure(FORGET, value, *ends, 4, 1, role)


def sequence(before: float, after: float, reference: float | None = None, later: float | None = None) -> History:
    """A ledger with one answered request, and perhaps a step after it."""
    request = Request(1, "a", None, None, None, AT, AT, 4, "", False, False, None, "done", step=1, new_rows=4)
    measures = [score(before, "before"), score(after)]
    measures += [] if reference is None else [score(reference, "reference")]
    steps = [Step(1, [1], [1], None, "runs/0001", {}, "done", measures=measures)]
    steps += [] if later is None else [Step(2, [2], [1, 2], None, "runs/0002", {}, "done", measures=[score(later)])]
    return History("", {}, {1: request}, steps, "")


@pytest.mark.parametrize(
    ("scores", "word"),
    [
        ((0.9, 0.02), "reduced"),  # without a reference nobody knows how low is low
        ((0.9, 0.02, 0.01), "forgotten"),
        ((0.9, 0.01, 0.2), "forgotten"),
        ((0.9, 0.5, 0.01), "reduced"),
        ((0.9, 0.88, 0.01), "remembered"),
        ((0.9, 0.93), "remembered"),
        ((0.02, 0.02, 0.02), "forgotten"),
        ((0.9, 0.02, 0.01, 0.5), "returned"),
        ((0.9, 0.02, 0.01, 0.06), "forgotten"),
        ((0.9, 0.5, 0.01, 0.02), "forgotten"),
    ],
)
def test_a_verdict_follows_from_the_scores(scores: tuple[float, ...], word: str) -> None:
    past = sequence(*scores)
    verdict = judge(past, past.requests[1])
    assert verdict is not None and verdict.word == word


def test_a_request_that_waits_has_no_verdict() -> None:
    past = sequence(0.9, 0.1)
    past.requests[1].state = "received"
    assert judge(past, past.requests[1]) is None


def test_a_score_has_come_back_when_it_is_above_its_interval_by_more_than_the_margin() -> None:
    assert not resurged(score(0.1, half=0.2), score(0.3))
    assert resurged(score(0.1, half=0.2), score(0.31))
    assert not resurged(score(0.1, half=0.001), score(0.15))
    assert not resurged(score(0.1, half=None), score(0.15)) and resurged(score(0.1, half=None), score(0.16))
