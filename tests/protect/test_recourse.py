from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from demur.errors import UsageError
from demur.protect import LinearFit, RobustCounterfactual, fit_linear
from protect.people import compas, people, refused

X, Y = people()
FIT = fit_linear(X, Y, 1e-2)
QUERIES = refused(FIT, X, 6)


def test_without_deletions_it_is_the_projection_onto_the_boundary() -> None:
    for x0 in QUERIES:
        found = RobustCounterfactual(FIT, X, Y, k=0).explain(x0)
        closed = x0 - FIT.scores(x0[None])[0] * FIT.weights / (FIT.weights @ FIT.weights)
        assert found.x == pytest.approx(closed, abs=1e-8)
        assert found.valid and not len(found.worst_points) and found.worst_score == pytest.approx(0, abs=1e-8)
        free = np.array([True, False, True, True])
        masked = RobustCounterfactual(FIT, X, Y, k=0, actionable=free).explain(x0).x
        w = np.where(free, FIT.weights, 0)
        assert masked == pytest.approx(x0 - FIT.scores(x0[None])[0] * w / (w @ w), abs=1e-8)


def test_the_answer_is_the_optimum_that_a_general_solver_finds() -> None:
    for delta in (0.0, 0.2):
        explain = RobustCounterfactual(FIT, X, Y, k=4, delta=delta, bounds=(0, 1))
        for x0 in QUERIES[:3]:
            found = explain.explain(x0)
            assert found.valid and found.worst_score == pytest.approx(delta, abs=1e-6)
            general = minimize(
                lambda x, x0=x0: ((x - x0) ** 2).sum(),
                found.x + 0.05,
                method="SLSQP",
                bounds=[(0, 1)] * 4,
                constraints={
                    "type": "ineq",
                    "fun": lambda x, delta=delta, explain=explain: explain.worst(x)[0] - delta,
                },
                options={"ftol": 1e-14, "maxiter": 500},
            )
            assert explain.worst(general.x)[0] >= delta - 1e-6
            assert found.cost <= np.linalg.norm(general.x - x0) + 1e-5


def test_the_papers_penalty_method_reaches_the_same_point() -> None:
    for x0 in QUERIES[:3]:
        exact = RobustCounterfactual(FIT, X, Y, k=3, delta=0.1).explain(x0)
        found = RobustCounterfactual(FIT, X, Y, k=3, delta=0.1, solver="penalty").explain(x0)
        assert found.valid and exact.cost - 1e-6 <= found.cost <= exact.cost * 1.02 + 1e-4


@given(st.integers(0, len(QUERIES) - 1), st.integers(0, 12), st.floats(0, 0.5))
@settings(max_examples=25, deadline=None)
def test_more_deletions_and_a_wider_margin_never_cost_less(query: int, k: int, delta: float) -> None:
    x0 = QUERIES[query]
    here, more, wider = (
        RobustCounterfactual(FIT, X, Y, k=count, delta=margin)
        for count, margin in ((k, delta), (k + 1, delta), (k, delta + 0.1))
    )
    assert here.worst(x0)[0] >= more.worst(x0)[0] - 1e-12
    cost = here.explain(x0).cost
    assert more.explain(x0).cost >= cost - 1e-7 and wider.explain(x0).cost >= cost - 1e-7


def test_the_slope_of_the_worst_score_is_its_finite_difference() -> None:
    explain = RobustCounterfactual(FIT, X, Y, k=5)
    for x in QUERIES:
        slope = explain._worst_and_slope(x)[1]
        for j in range(4):
            step = 1e-6 * np.eye(4)[j]
            measured = (explain.worst(x + step)[0] - explain.worst(x - step)[0]) / 2e-6
            assert measured == pytest.approx(slope[j], abs=1e-5)


def test_exactly_k_counts_helpful_rows_and_up_to_k_does_not() -> None:
    x0, k = QUERIES[0], len(X) - 2
    up_to, exactly = (RobustCounterfactual(FIT, X, Y, k=k, exactly=flag).worst(x0)[0] for flag in (False, True))
    assert up_to < exactly


def test_the_bound_of_the_extra_cost_holds() -> None:
    """‖x_k − x0‖ ≤ ‖x − x0‖ + k C / (n ‖θ‖), C the largest influence at the answer without deletions."""
    for x0 in QUERIES:
        plain = RobustCounterfactual(FIT, X, Y, k=0).explain(x0)
        robust = RobustCounterfactual(FIT, X, Y, k=3)
        influences = np.abs(np.column_stack([robust._smooth.influence(p) for p in (plain.x, robust.explain(x0).x)]))  # type: ignore[union-attr]
        slack = 3 * influences.max() / (len(X) * np.linalg.norm(FIT.weights))
        assert robust.explain(x0).cost <= plain.cost + slack + 1e-9


def test_auto_raises_delta_until_the_true_refit_accepts() -> None:
    rows, labels, fit, queries = compas(1000, 0, 1e-3)
    still = RobustCounterfactual(fit, rows, labels, k=10)
    auto = RobustCounterfactual(fit, rows, labels, k=10, delta="auto")
    for x0 in queries[:6]:
        found, first = auto.explain(x0), still.explain(x0)
        assert still.refit(first.worst_points)(first.x[None])[0] < 0  # δ = 0 holds for approximate models only
        assert found.valid and found.delta > 0 and found.refit_score is not None and found.refit_score >= 0
        assert auto.refit(found.worst_points)(found.x[None])[0] == found.refit_score
        assert found.cost - first.cost <= 0.08


def test_who_is_accepted_already_is_returned_unchanged() -> None:
    x0 = X[FIT.scores(X) >= 0][0]
    found = RobustCounterfactual(FIT, X, Y, k=2).explain(x0)
    assert (found.x == x0).all() and found.cost == 0
    assert found.valid == (found.worst_score >= 0)


@pytest.mark.parametrize("solver", ["slsqp", "penalty"])
@pytest.mark.parametrize("delta", [0.0, "auto"])
def test_where_nothing_within_bounds_is_accepted_the_best_is_returned_as_not_valid(solver: str, delta: object) -> None:
    x0 = QUERIES[0]
    low, high = x0 - 1e-3, x0 + 1e-3
    found = RobustCounterfactual(FIT, X, Y, k=2, delta=delta, bounds=(low, high), solver=solver).explain(x0)  # type: ignore[arg-type]
    assert not found.valid and (low <= found.x).all() and (found.x <= high).all()
    assert found.worst_score > RobustCounterfactual(FIT, X, Y, k=2).worst(x0)[0]


def test_what_survives_is_counted_by_the_same_sums() -> None:
    explain = RobustCounterfactual(FIT, X, Y, k=5)
    found = explain.explain(QUERIES[0])
    most = explain.survives(found.x)
    assert explain.worst(found.x, most)[0] >= 0 > explain.worst(found.x, most + 1)[0]
    assert most >= 4  # five, where rounding does not put the worst score at -1e-17


def test_a_linear_fit_of_ones_own_is_a_model() -> None:
    again = LinearFit(FIT.weights, FIT.bias, FIT.ridge)
    assert RobustCounterfactual(again, X, Y).explain(QUERIES[0]).valid


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"k": 80}, "delete all 80"),
        ({"bounds": (1, 0)}, "bounds of feature 0 cross"),
        ({"solver": "newton"}, "slsqp or penalty"),
        ({"delta": "best"}, "a number or auto"),
        ({"actionable": [9]}, "features 0 to 3"),
        ({"actionable": [True, False]}, "features 0 to 3"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict, problem: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(UsageError, match=problem):
        RobustCounterfactual(FIT, X, Y, **options)


def test_a_query_of_another_shape_is_refused() -> None:
    with pytest.raises(UsageError, match=r"\(3,\), not \(4,\)"):
        RobustCounterfactual(FIT, X, Y).explain(X[0, :3])
    with pytest.raises(UsageError, match="no number"):
        RobustCounterfactual(FIT, X, Y).explain(np.full(4, np.nan))
