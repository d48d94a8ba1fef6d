from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demur.errors import UsageError
from demur.protect import RobustCounterfactual, deletion_influence, fit_linear, worst_deletions
from demur.protect.influence import rows_of
from demur.protect.linear import LinearDeletion
from protect.people import compas, people, refused


@given(
    st.lists(st.floats(-5, 5), min_size=3, max_size=9),
    st.integers(0, 3),
    st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_the_k_smallest_are_the_worst_of_all_subsets(values: list[float], k: int, exactly: bool) -> None:
    influence = np.array(values)
    sizes = [k] if exactly else range(k + 1)
    every = [influence[list(rows)].sum() for size in sizes for rows in itertools.combinations(range(len(values)), size)]
    lowest, rows = worst_deletions(influence, k, exactly)
    assert lowest == pytest.approx(min(every), abs=1e-12)
    assert influence[rows].sum() == pytest.approx(lowest) and list(influence[rows]) == sorted(influence[rows])


def test_the_worst_score_is_the_minimum_over_all_approximate_models() -> None:
    X, y = people(14)
    fit = fit_linear(X, y, 0.05)
    deletion = LinearDeletion(fit, X, y)
    explain = RobustCounterfactual(fit, X, y, k=3, exactly=True)
    for x in X[:4]:
        every = {
            rows: deletion.moved(list(rows)).scores(x[None])[0] for rows in itertools.combinations(range(len(X)), 3)
        }
        lowest, rows = explain.worst(x)
        assert lowest == pytest.approx(min(every.values()), abs=1e-12)
        assert set(rows) == set(min(every, key=every.__getitem__))


def test_brute_force_over_all_pairs_of_real_people_finds_the_same_worst_pair() -> None:
    X, y, fit, _ = compas(30, 0, 1e-2)
    deletion = LinearDeletion(fit, X, y)
    explain = RobustCounterfactual(fit, X, y, k=2, exactly=True)
    pairs = list(itertools.combinations(range(30), 2))
    true = np.stack([deletion.refit(pair).scores(X) for pair in pairs])
    hits, ranks = 0, []
    for query in range(30):
        predicted = tuple(sorted(explain.worst(X[query])[1]))
        place = pairs.index(predicted)  # type: ignore[arg-type]
        ranks.append((true[:, query] < true[place, query]).mean())
        hits += place == true[:, query].argmin()
    assert hits >= 20 and max(ranks) <= 0.02


def test_least_squares_influences_are_the_exact_leave_one_out_formula_up_to_one_over_n() -> None:
    for n, within in ((200, 0.1), (2000, 0.01)):
        X, _ = people(n)
        y = X @ np.array([1.0, -2, 0.5, 0]) + 0.3 * np.random.default_rng(1).normal(size=n)
        fit = fit_linear(X, y, 0.0, "squared")
        Z = np.column_stack([X, np.ones(n)])
        leverage = np.einsum("ij,jk,ik->i", Z, np.linalg.inv(Z.T @ Z), Z)
        influence, deletion = deletion_influence(fit, X, y, X[0]), LinearDeletion(fit, X, y)
        true = np.array([deletion.refit([i]).scores(X[:1])[0] for i in range(30)])
        assert true - fit.scores(X[:1]) == pytest.approx((influence / n / (1 - leverage))[:30], abs=1e-10)
        assert np.abs(1 / (1 - leverage) - 1).max() < within  # all that the first order leaves out


def test_finite_differences_in_a_rows_weight_give_minus_its_influence() -> None:
    X, y = people(60)
    fit, h = fit_linear(X, y, 1e-2), 1e-4
    influence = deletion_influence(fit, X, y, X[3])
    for i in (0, 7, 41):
        sides = []
        for sign in (1, -1):
            weights = np.ones(len(X))
            weights[i] += sign * h
            sides.append(fit_linear(X, y, 1e-2, weights=weights).scores(X[3:4])[0])
        assert (sides[0] - sides[1]) / (2 * h) == pytest.approx(-influence[i] / len(X), abs=1e-6)


def test_the_first_order_misses_the_true_refit_by_little() -> None:
    X, y, fit, _ = compas(1000, 1, 1e-3)
    deletion = LinearDeletion(fit, X, y)
    for k in (1, 5, 20):
        rows = np.random.default_rng(k).choice(1000, k, replace=False)
        true = deletion.refit(rows).theta
        assert np.linalg.norm(deletion.moved(rows).theta - true) <= 0.1 * np.linalg.norm(true - fit.theta)


def test_scikit_learns_c_is_translated() -> None:
    from sklearn.linear_model import LogisticRegression

    X, y = people(100)
    model = LogisticRegression(C=5.0, tol=1e-10, max_iter=1000).fit(X, y)
    fit = fit_linear(X, y, 1 / (5.0 * 100))
    assert fit.weights == pytest.approx(model.coef_[0], abs=1e-6) and fit.bias == pytest.approx(model.intercept_[0])
    x = refused(fit, X)[0]
    assert deletion_influence(model, X, y, x) == pytest.approx(deletion_influence(fit, X, y, x), abs=1e-4)
    kept = np.arange(100) != 7
    again = LogisticRegression(C=5.0, tol=1e-10, max_iter=1000).fit(X[kept], y[kept])
    assert LinearDeletion(fit, X, y).refit([7]).weights == pytest.approx(again.coef_[0], abs=1e-5)


def test_what_cannot_be_expanded_is_refused_in_a_sentence() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import LinearSVC

    X, y = people()
    with pytest.raises(UsageError, match="has not converged"):
        deletion_influence(LogisticRegression(max_iter=1).fit(X, y), X, y, X[0])
    with pytest.raises(UsageError, match="has not converged on this data"):
        deletion_influence(fit_linear(X, y), X, 1 - y, X[0])
    with pytest.raises(UsageError, match="not fitted"):
        deletion_influence(LogisticRegression(), X, y, X[0])
    with pytest.raises(UsageError, match="without class_weight"):
        deletion_influence(LogisticRegression(class_weight="balanced").fit(X, y), X, y, X[0])
    with pytest.raises(UsageError, match="no recourse for LinearSVC"):
        deletion_influence(LinearSVC().fit(X, y), X, y, X[0])
    with pytest.raises(UsageError, match="takes 4 features"):
        deletion_influence(fit_linear(X, y), X[:, :3], y, X[0, :3])
    twice = np.column_stack([X, X[:, 0]])
    with pytest.raises(UsageError, match="singular"):
        deletion_influence(fit_linear(twice, y, 0.0), twice, y, twice[0])
    damped = deletion_influence(fit_linear(twice, y, 0.0), twice, y, twice[0], damping=1e-9)
    assert damped == pytest.approx(deletion_influence(fit_linear(X, y, 0.0), X, y, X[0]), rel=1e-3, abs=1e-5)
    with pytest.raises(UsageError, match="3 values"):
        fit_linear(X, np.arange(len(X)) % 3)


@pytest.mark.parametrize(("k", "rows"), [(0, 0), (3, 3), (0.005, 5), (0.0001, 1)])
def test_a_share_below_one_is_a_number_of_rows(k: float, rows: int) -> None:
    assert rows_of(k, 1000) == rows


@pytest.mark.parametrize("k", [1000, -1, 2.5])
def test_deleting_everything_or_a_part_of_a_row_is_refused(k: float) -> None:
    with pytest.raises(UsageError, match="k = "):
        rows_of(k, 1000)
