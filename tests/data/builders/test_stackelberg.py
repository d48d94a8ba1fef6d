from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from demur.data import Candidate, NextTurn, StackelbergSelector, pearl_point
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


def _world(seed: int) -> tuple[list[Candidate], dict[str, list[NextTurn]], list[float]]:
    """Three responses, after each of which two more queries may come, with two responses to each."""
    rng = np.random.default_rng(seed)

    def candidate(name: str) -> Candidate:
        liked, risk = rng.uniform(-1, 1, 3), rng.uniform(0, 1, 3)
        types = (dict(zip(USER_TYPES, values.tolist(), strict=True)) for values in (liked, risk))
        return Candidate(name, *types, cost=float(rng.uniform()))

    first = [candidate(f"y{i}") for i in range(3)]
    turns = {}
    for y in first:
        chances = rng.dirichlet([1, 1, 1], size=3)  # of either query and of leaving, by type
        turns[y.response] = [
            NextTurn(
                f"x{j}", dict(zip(USER_TYPES, chances[:, j].tolist(), strict=True)), [candidate("a"), candidate("b")]
            )
            for j in range(2)
        ]
    return first, turns, rng.dirichlet([1, 1, 1]).tolist()


@pytest.mark.parametrize("seed", range(5))
def test_two_turns_are_worth_what_the_best_of_all_plans_is(seed: int) -> None:
    first, turns, prior = _world(seed)
    alpha, beta, gamma, discount = 1.0, 1.5, 0.1, 0.8
    leader = StackelbergSelector(alpha, beta, gamma, simulate=lambda _, y: turns[y.response], discount=discount)

    def payoff(candidate: Candidate, kind: str) -> float:
        return alpha * candidate.satisfaction[kind] - beta * candidate.risk_for(kind) - gamma * candidate.cost

    def worth(y: Candidate, plan: tuple[int, ...]) -> float:
        """Mean over user types and what they ask, of a first response and a fixed answer to either next query."""
        total = 0.0
        for p, kind in zip(prior, USER_TYPES, strict=True):
            total += p * payoff(y, kind)
            for turn, choice in zip(turns[y.response], plan, strict=True):
                total += discount * p * turn.chances[kind] * payoff(turn.candidates[choice], kind)
        return total

    best = [max(worth(y, plan) for plan in itertools.product(range(2), repeat=2)) for y in first]
    assert leader.payoffs(first, prior, "x") == pytest.approx(best)
    assert leader.select("x", first, prior) is first[int(np.argmax(best))]


def test_a_second_turn_that_weighs_nothing_or_never_comes_changes_nothing() -> None:
    first, turns, prior = _world(0)
    once = StackelbergSelector().payoffs(first, prior)
    assert StackelbergSelector(simulate=lambda _, y: turns[y.response], discount=0).payoffs(first, prior) == once
    assert StackelbergSelector(simulate=lambda _, y: []).payoffs(first, prior) == once


def test_a_response_that_lets_types_tell_themselves_apart_is_worth_more() -> None:
    """Asking back costs a little, but the malicious then ask something that the others do not."""
    back = Candidate("what is it for?", dict.fromkeys(USER_TYPES, -0.1), 0.0)
    direct = Candidate("direct", dict.fromkeys(USER_TYPES, 0.8), {"benign": 0.0, "sensitive": 0.0, "malicious": 1.0})
    refuse = Candidate("refuse", dict.fromkeys(USER_TYPES, -0.6), 0.0)
    told = [
        NextTurn("for my roof", {"benign": 1.0, "sensitive": 1.0, "malicious": 0.0}, [direct, refuse]),
        NextTurn("never mind that", {"benign": 0.0, "sensitive": 0.0, "malicious": 1.0}, [direct, refuse]),
    ]
    choices, prior = [direct, refuse, back], (0.5, 0.0, 0.5)
    assert StackelbergSelector().select("q", choices, prior) is back
    two = StackelbergSelector(simulate=lambda _, y: told if y is back else [])
    assert two.payoffs(choices, prior) == pytest.approx([-0.2, -0.6, -0.1 + 0.5 * 0.8 - 0.5 * 0.6])


def test_a_simulated_user_that_makes_no_sense_is_refused() -> None:
    def turned(**chances: float) -> StackelbergSelector:
        return StackelbergSelector(
            simulate=lambda _, y: [NextTurn("x", chances, [REFUSE]), NextTurn("z", chances, [REFUSE])]
        )

    prior = (1.0, 0.0, 0.0)
    with pytest.raises(UsageError, match="benign users ask next"):
        turned(benign=0.6, sensitive=0.0, malicious=0.0).payoffs(ALL, prior)
    with pytest.raises(UsageError, match="no chance for malicious users"):
        turned(benign=0.5, sensitive=0.0).payoffs(ALL, prior)
    with pytest.raises(UsageError, match="no candidate"):
        StackelbergSelector(simulate=lambda _, y: [NextTurn("x", dict.fromkeys(USER_TYPES, 0.5), [])]).payoffs(
            ALL, prior
        )
    with pytest.raises(UsageError, match="discount"):
        StackelbergSelector(discount=1.5)
