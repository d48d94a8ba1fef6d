from __future__ import annotations

import itertools

import numpy as np
import pytest
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier

from demur.errors import DemurError, UsageError
from demur.protect import RobustCounterfactual, deletion_influence, validity
from demur.protect.trees import TreeDeletion
from protect.people import people

X, Y = people(30, features=3, seed=2)
MODELS = {
    "tree": DecisionTreeClassifier(max_depth=3, min_samples_leaf=3, random_state=0),
    "forest": RandomForestClassifier(4, max_depth=2, min_samples_leaf=3, random_state=0),
    "no bootstrap": ExtraTreesClassifier(3, max_depth=2, random_state=0),
}


@pytest.mark.parametrize("name", MODELS)
def test_scores_are_the_models_own_votes(name: str) -> None:
    model = MODELS[name].fit(X, Y)
    points = np.random.default_rng(0).uniform(size=(200, 3))
    scores = TreeDeletion(model, X, Y).scores(points)
    assert scores == pytest.approx(model.predict_proba(points)[:, 1] - 0.5, abs=1e-6)
    assert ((scores >= 0) == (model.predict(points) == 1)).all()


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("name", MODELS)
def test_no_deletion_of_k_rows_gets_below_the_bound_and_one_tree_reaches_it(name: str, k: int) -> None:
    deletion = TreeDeletion(MODELS[name].fit(X, Y), X, Y)
    for x in np.random.default_rng(1).uniform(size=(15, 3)):
        bound, rows = deletion.worst(x, k)
        every = deletion.recounted(x, itertools.combinations(range(30), k))
        assert every.min() >= bound - 1e-12 and len(rows) <= k
        if name == "tree":
            assert every.min() == pytest.approx(bound) == pytest.approx(deletion.recounted(x, [rows])[0])


@pytest.mark.parametrize("name", MODELS)
def test_the_nearest_accepted_point_is_nearer_than_any_of_a_fine_sample(name: str) -> None:
    model = MODELS[name].fit(X, Y)
    explain = RobustCounterfactual(model, X, Y, k=1)
    deletion = TreeDeletion(model, X, Y)
    sample = np.random.default_rng(3).uniform(size=(4000, 3))
    keeps = np.array([deletion.worst(x, 1)[0] >= 0 for x in sample[:1500]])
    for x0 in sample[deletion.scores(sample) < 0][:6]:
        found = explain.explain(x0)
        if not keeps.any():
            assert not found.valid
            continue
        assert found.valid and model.predict(found.x[None])[0] == 1
        assert found.cost <= np.linalg.norm(sample[:1500][keeps] - x0, axis=1).min() + 1e-6
        pairs = deletion.recounted(found.x, itertools.combinations(range(30), 1))
        assert pairs.min() >= 0


def test_more_deletions_never_cost_less_and_too_many_are_not_survived() -> None:
    model = MODELS["tree"].fit(X, Y)
    x0 = X[model.predict(X) == 0][0]
    costs = [RobustCounterfactual(model, X, Y, k=k).explain(x0) for k in (0, 1, 2, 29)]
    assert costs[0].cost <= costs[1].cost <= costs[2].cost
    assert not costs[3].valid and costs[3].score >= 0  # the nearest that is accepted now
    survived = RobustCounterfactual(model, X, Y, k=1).survives(costs[2].x)
    assert survived >= 2 and TreeDeletion(model, X, Y).worst(costs[2].x, survived + 1)[0] < 0


def test_fixed_features_and_bounds_are_kept() -> None:
    model = MODELS["tree"].fit(X, Y)
    explain = RobustCounterfactual(model, X, Y, k=1, actionable=[0], bounds=(0, 1))
    for x0 in X[model.predict(X) == 0]:
        x = explain.explain(x0).x
        assert (x[1:] == x0[1:]).all() and 0 <= x[0] <= 1


def test_a_refit_keeps_the_bootstrap_draws_so_that_only_the_deletion_counts() -> None:
    model = MODELS["forest"].fit(X, Y)
    explain = RobustCounterfactual(model, X, Y, k=1)
    points = np.random.default_rng(0).uniform(size=(50, 3))
    assert explain.refit([])(points) == pytest.approx(explain.scores(points))
    assert explain.refit([0, 1, 2])(points) != pytest.approx(explain.scores(points))
    found = explain.explain_all(X[model.predict(X) == 0][:3])
    assert validity(found, explain.refit, k=1, repeats=5).scores.shape == (5, 3)


def test_what_trees_cannot_be_asked_is_refused() -> None:
    model = MODELS["tree"].fit(X, Y)
    with pytest.raises(UsageError, match="no recourse for DecisionTreeClassifier"):
        deletion_influence(model, X, Y, X[0])
    with pytest.raises(UsageError, match="other rows"):
        TreeDeletion(model, X[::-1] * 0.5, Y)
    with pytest.raises(UsageError, match="not fitted"):
        TreeDeletion(DecisionTreeClassifier(), X, Y)
    with pytest.raises(UsageError, match="class_weight"):
        TreeDeletion(DecisionTreeClassifier(class_weight="balanced").fit(X, Y), X, Y)


def test_a_forest_too_large_to_search_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("demur.protect.trees._VISITS", 3)
    model = MODELS["forest"].fit(X, Y)
    with pytest.raises(DemurError, match="fewer or shallower"):
        RobustCounterfactual(model, X, Y, k=0).explain(X[model.predict(X) == 0][0])
