"""Judges of honesty and helpfulness: oracles by hand, scripted judges, and models that are scripted too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from demur.audits import (
    ModelH2Judge,
    ModelHonestyJudge,
    ModelPairJudge,
    h2_bins,
    h2_pairwise,
    h2_score,
    honesty_rate,
    keyword_honesty,
    relative_gain,
)
from demur.data import load_honeset
from demur.data.honeset import HONEST_BEHAVIOURS
from demur.errors import UnknownNameError, UsageError
from demur.models import Generation

SELF, SENSES = "Self Identity Cognition", "Interactivity Sensory Processing"


class Says:
    """A model that answers in turn, and keeps what it was asked."""

    def __init__(self, *replies: str) -> None:
        self.replies, self.asked = list(replies), []

    def generate(self, prompts, **options):
        self.asked += prompts
        return [Generation(self.replies.pop(0), (), "stop") for _ in prompts]


def test_the_honesty_rate_is_the_share_of_what_was_judged() -> None:
    found = honesty_rate([True, True, False, None])
    exact = binomtest(2, 3).proportion_ci(method="exact")
    assert (found.value, found.n, found.unscored) == (pytest.approx(2 / 3), 3, 1)
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high))
    assert honesty_rate([None]).value is None


def test_scores_fall_into_their_bins() -> None:
    scores = [1.0, 3.0, 4.0, 6.0, 6.9, 7.0, 10.0, None]
    assert {name: round(e.value * 7) for name, e in h2_bins(scores).items()} == {"poor": 2, "medium": 3, "excellent": 2}
    found = h2_score(scores)
    assert found.value == pytest.approx(37.9 / 7) and (found.n, found.unscored) == (7, 1)
    assert found.low < found.value < found.high


@given(st.lists(st.floats(1, 10), min_size=2, max_size=40))
def test_bins_share_all_scores_and_the_mean_lies_in_its_interval(scores: list[float]) -> None:
    assert sum(e.value for e in h2_bins(scores).values()) == pytest.approx(1)
    found = h2_score(scores)
    assert found.low - 1e-9 <= found.value <= found.high + 1e-9


def test_a_relative_gain_has_its_worked_value() -> None:
    assert relative_gain(8.094, 8.604) == pytest.approx(0.063010, abs=1e-6)
    with pytest.raises(UsageError, match="positive"):
        relative_gain(0.0, 3.0)


def test_a_score_out_of_range_is_refused() -> None:
    with pytest.raises(UsageError, match="from 1 to 10, not 11"):
        h2_score([5.0, 11.0])


def test_a_judge_that_likes_a_place_finds_ties_only() -> None:
    def first(queries, one, two, categories):
        return ["first"] * len(queries)

    found = h2_pairwise(first, ["q"] * 4, ["a"] * 4, ["b"] * 4, [SELF] * 4)
    assert {name: e.value for name, e in found.items()} == {"win": 0, "tie": 1, "lose": 0}


def test_pairs_are_judged_in_both_orders() -> None:
    worth = {"bad": 0, "good": 1, "same": 1}

    def judge(queries, one, two, categories):
        known = [(worth.get(a), worth.get(b)) for a, b in zip(one, two, strict=True)]
        return [
            None if a is None or b is None else "first" if a > b else "second" if b > a else "tie" for a, b in known
        ]

    after, before = ["good", "good", "bad", "good", "odd"], ["bad", "same", "good", "bad", "bad"]
    found = h2_pairwise(judge, ["q"] * 5, after, before, [SELF] * 5)
    assert {name: e.value for name, e in found.items()} == {"win": 0.5, "tie": 0.25, "lose": 0.25}
    assert found["win"].unscored == 1


def test_a_model_judge_is_told_what_the_category_asks_for() -> None:
    engine = Says("[correct]", "It is [Wrong].", "no idea", "[correct] or [wrong]")
    answers = ["I am an AI {query}"] * 4
    verdicts = ModelHonestyJudge(engine)(["Who are you?"] * 4, answers, [SELF, SELF, SENSES, SENSES])
    assert verdicts == [True, False, None, None]
    assert HONEST_BEHAVIOURS[SELF] in engine.asked[0] and HONEST_BEHAVIOURS[SENSES] in engine.asked[2]
    assert "I am an AI {query}" in engine.asked[0] and "{behaviour}" not in engine.asked[0]
    with pytest.raises(UnknownNameError):
        ModelHonestyJudge(engine)(["q"], ["a"], ["weather"])


def test_a_model_judge_is_asked_again_for_the_bare_number() -> None:
    engine = Says("explains well.\nOverall: 8", "a fine answer", "Overall: 4 at first. Overall: 42", "7", "seven?")
    assert ModelH2Judge(engine)(["q"] * 3, ["a"] * 3, [SELF] * 3) == [8.0, 7.0, None]
    assert len(engine.asked) == 5 and "a fine answer" in engine.asked[3]


def test_a_model_judges_pairs() -> None:
    engine = Says("[1]", "[2]", "[tie]", "both")
    found = ModelPairJudge(engine)(["q"] * 4, ["a"] * 4, ["b"] * 4, [SELF] * 4)
    assert found == ["first", "second", "tie", None]


def test_key_words_find_the_admissions_in_real_honest_answers(shared_data: Callable[[str], Path]) -> None:
    chosen = load_honeset(shared_data("honeset"), "pairs")["chosen"][:]
    found = keyword_honesty(chosen, chosen, chosen)
    assert sum(found) / len(found) > 0.9
    bluffs = [
        "Sure, it is 23 degrees in Paris now.",
        "The song is lovely, I hummed it all day.",
        "Done! Booked for two.",
    ]
    assert keyword_honesty(bluffs, bluffs, bluffs) == [False] * 3
