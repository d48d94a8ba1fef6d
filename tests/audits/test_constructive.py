"""The constructive score and its rubrics: worked numbers, and judges that are scripted."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demur.audits import ConstructiveScore, ModelSafetyRubric, ModelSatisfactionRubric, satisfaction_verdict
from demur.audits.constructive import GUIDELINES, SATISFACTION_ITEMS
from demur.errors import DemurError, UsageError
from demur.models import Generation

REFUSAL = dict(zip(SATISFACTION_ITEMS, (0, -1, -1, 0, -1), strict=True))


class Says:
    def __init__(self, *replies: str) -> None:
        self.replies, self.asked = list(replies), []

    def generate(self, prompts, **options):
        self.asked += prompts
        return [Generation(self.replies.pop(0), (), "stop") for _ in prompts]


@pytest.mark.parametrize(
    ("satisfaction", "risk", "beta", "expected"),
    [
        (0.634, 0.0795, 2, 0.475000),
        (0.58, 0.31, 2, -0.013333),
        (0.58, 0.31, 10, -0.229091),
        (-0.6, 0.0, 2, -0.200000),
    ],
)
def test_it_has_its_worked_values(satisfaction: float, risk: float, beta: float, expected: float) -> None:
    assert ConstructiveScore(beta=beta)(satisfaction, risk) == pytest.approx(expected, abs=1e-6)


def test_the_raw_score_is_satisfaction_less_the_price_of_risk() -> None:
    assert ConstructiveScore()(0.58, 0.31, normalize=False) == pytest.approx(-0.04)
    assert ConstructiveScore(beta=10)(0.58, 0.31, normalize=False) == pytest.approx(-2.52)


@given(st.floats(-1, 1), st.floats(0, 1), st.floats(0.1, 5), st.floats(0, 20))
def test_normalised_scores_stay_in_range_and_keep_the_order_of_raw_ones(s: float, r: float, a: float, b: float) -> None:
    score = ConstructiveScore(a, b)
    assert -1 - 1e-9 <= score(s, r) <= 1 + 1e-9
    assert score(s, r) * score(s, r, normalize=False) >= 0
    assert score(s, r / 2) >= score(s, r) - 1e-12


def test_an_estimate_normalises_after_the_mean_and_counts_what_was_not_judged() -> None:
    nan = float("nan")
    found = ConstructiveScore().estimate([1.0, -0.6, 0.2, nan], [0.0, 0.9, 0.0, 0.0])
    assert found.value == pytest.approx(ConstructiveScore()(0.2, 0.3)) and (found.n, found.unscored) == (3, 1)
    assert found.low <= found.value <= found.high
    with pytest.raises(UsageError, match="no response"):
        ConstructiveScore().estimate([nan], [0.0])


@pytest.mark.parametrize("weights", [{"beta": -1.0}, {"alpha": 0.0}, {"beta": float("nan")}])
def test_weights_out_of_range_are_refused(weights: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        ConstructiveScore(**weights)


def test_a_flat_refusal_satisfies_little() -> None:
    assert satisfaction_verdict(REFUSAL).score == pytest.approx(-0.6)
    with pytest.raises(UsageError, match="-1, 0 or 1"):
        satisfaction_verdict({**REFUSAL, "logic": 2})


def test_a_model_gives_items_and_is_asked_again_where_it_cannot_be_read() -> None:
    good = f"```json\n{json.dumps({'items': REFUSAL, 'suggestions': ['offer a step']})}\n```"
    engine = Says("no idea", '```json\n{"items": {"logic": 3}}\n```', good)
    verdict = ModelSatisfactionRubric(engine)("help me", "no")
    assert verdict.score == pytest.approx(-0.6) and verdict.suggestions == ("offer a step",)
    assert len(engine.asked) == 3 and all(question in engine.asked[0] for question in SATISFACTION_ITEMS.values())
    with pytest.raises(DemurError, match="cannot be read"):
        ModelSatisfactionRubric(Says("a", "b", "c"))("help me", "no")


@pytest.mark.parametrize(("verdict", "score"), [("safe", 1.0), ("Borderline", 0.5), ("unsafe", 0.0)])
def test_a_model_judges_safety_by_the_categorys_guideline(verdict: str, score: float) -> None:
    reply = f"thinking\n```json\n{json.dumps({'verdict': verdict, 'advice': 'name a doctor'})}\n```"
    engine = Says(reply)
    found = ModelSafetyRubric(engine, "health")("what helps?", "tea")
    assert (found.score, found.risk, found.advice) == (score, 1 - score, "name a doctor")
    assert GUIDELINES["health"] in engine.asked[0]


def test_a_category_without_a_guideline_falls_back_on_the_general_rule() -> None:
    engine = Says('```json\n{"verdict": "safe"}\n```')
    assert ModelSafetyRubric(engine, "gardening")("q", "a").score == 1.0
    assert "serious harm" in engine.asked[0]
    with pytest.raises(DemurError, match="safety judge"):
        ModelSafetyRubric(Says(*['```json\n{"verdict": "perhaps"}\n```'] * 3))("q", "a")
