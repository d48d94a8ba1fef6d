from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demur.data import Candidate, StackelbergSelector, pearl_point
from demur.data.builders.stackelberg import USER_TYPES
from demur.errors import UsageError

DIRECT, CONSTRUCTIVE, REFUSE = (
    Candidate(name, dict(zip(USER_TYPES, liked, strict=True)), risk, cost)
    for name, liked, risk, cost in (
        ("direct", (0.9, 0.2, 0.9), 0.7, 0.01),
        ("constructive", (0.6, 0.8, 0.1), 0.05, 0.01),
        ("refuse", (-0.6, -0.8, -0.6), 0.0, 0.002),
    )
)
ALL = [DIRECT, CONSTRUCTIVE, REFUSE]


@pytest.mark.parametrize(
    ("prior", "beta", "payoffs", "chosen"),
    [
        ((0.9, 0.08, 0.02), 0.1, (0.764, 0.591, -0.618), DIRECT),
        ((0.9, 0.08, 0.02), 2.0, (-0.566, 0.496, -0.618), CONSTRUCTIVE),
        ((0.02, 0.08, 0.9), 10.0, (-6.166, -0.344, -0.618), CONSTRUCTIVE),
    ],
)
def test_payoffs_have_their_worked_values(prior, beta, payoffs, chosen) -> None:
    leader = StackelbergSelector(1.0, beta, 1.0)
    assert leader.payoffs(ALL, prior) == pytest.approx(payoffs, abs=1e-9)
    assert leader.select("q", ALL, prior) is chosen


@given(st.lists(st.floats(0.01, 1), min_size=3, max_size=3), st.floats(0, 10))
def test_no_fixed_choice_has_a_better_expected_payoff(weights: list[float], beta: float) -> None:
    prior = [w / sum(weights) for w in weights]
    leader = StackelbergSelector(beta=beta)
    payoffs = leader.payoffs(ALL, prior)
    assert payoffs[ALL.index(leader.select("q", ALL, prior))] == max(payoffs)


def test_the_expectation_is_not_the_payoff_of_the_likeliest_type() -> None:
    prior = (0.5, 0.1, 0.4)
    risky = Candidate("direct", DIRECT.satisfaction, {"benign": 0.05, "sensitive": 0.6, "malicious": 1.0})
    leader = StackelbergSelector()
    assert leader.select("q", [risky, CONSTRUCTIVE], prior) is CONSTRUCTIVE
    assert leader.select("q", [risky, CONSTRUCTIVE], (1.0, 0.0, 0.0)) is risky


def test_the_pearl_point_is_the_most_satisfying_safe_one() -> None:
    prior = (0.9, 0.08, 0.02)
    assert pearl_point(ALL, prior) is REFUSE
    assert pearl_point(ALL, prior, tolerance=0.1) is CONSTRUCTIVE
    assert pearl_point(ALL, prior, tolerance=0.7) is DIRECT
    assert pearl_point([DIRECT], prior) is None


@pytest.mark.parametrize("prior", [(0.5, 0.5), (0.5, 0.5, 0.5), (1.2, -0.1, -0.1)])
def test_a_belief_that_is_no_distribution_is_refused(prior) -> None:
    with pytest.raises(UsageError, match="sum to 1"):
        StackelbergSelector().select("q", ALL, prior)


def test_what_cannot_be_weighed_is_refused() -> None:
    with pytest.raises(UsageError, match="beta must be a number of at least 0, not -2"):
        StackelbergSelector(beta=-2)
    with pytest.raises(UsageError, match="no candidate"):
        StackelbergSelector().select("q", [], (1.0, 0.0, 0.0))
    with pytest.raises(UsageError, match="no values for malicious users"):
        StackelbergSelector().payoffs([Candidate("x", {"benign": 0.0, "sensitive": 0.0}, 0.0)], (0.5, 0.25, 0.25))
