from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.datasets import load_iris
from torch import Tensor, nn

from demur.audits.classifiers import worst_case
from demur.audits.classifiers.worst_case import (
    WorstCaseForgetSet,
    forget_set_difficulty,
    project_capped_simplex,
    rank_by_loss,
    row_losses,
)
from demur.data.labelled import Labelled
from demur.data.labelled_sources import read_labelled
from demur.errors import DemurError, UsageError
from demur.models import train_classifier
from demur.models.classifier import Classifier

points = st.lists(st.floats(-3, 3, allow_nan=False), min_size=2, max_size=8)
DATA = read_labelled("digits:train[0:120]")


@pytest.fixture(scope="module")
def model() -> Classifier:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10))
    return train_classifier(Classifier(net, head="3"), DATA, epochs=40, learning_rate=0.1, batch_size=16)


def test_projection_of_the_worked_example() -> None:
    found = project_capped_simplex(torch.tensor([1.2, 0.9, 0.4, 0.1, -0.3]), 2)
    assert found.tolist() == pytest.approx([1, 0.75, 0.25, 0, 0], abs=1e-7)


@settings(max_examples=60)
@given(values=points, share=st.floats(0.05, 0.95))
def test_projection_is_what_a_quadratic_program_finds(values: list[float], share: float) -> None:
    a, m = np.array(values), share * len(values)
    found = project_capped_simplex(torch.tensor(values), m).numpy()
    assert found.sum() == pytest.approx(m, abs=1e-6) and (found >= 0).all() and (found <= 1).all()
    solved = minimize(
        lambda w: float(((w - a) ** 2).sum()),
        np.full(len(a), share),
        jac=lambda w: 2 * (w - a),
        bounds=[(0, 1)] * len(a),
        constraints={"type": "eq", "fun": lambda w: w.sum() - m, "jac": lambda w: np.ones(len(a))},
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 300},
    )
    assume(solved.success)
    assert found == pytest.approx(solved.x, abs=1e-4)


@given(values=points, share=st.floats(0.05, 0.95))
def test_what_lies_in_the_set_is_projected_on_itself(values: list[float], share: float) -> None:
    once = project_capped_simplex(torch.tensor(values), share * len(values))
    assert project_capped_simplex(once, share * len(values)).numpy() == pytest.approx(once.numpy(), abs=1e-7)


@given(values=points)
def test_a_sum_of_all_is_all_ones_and_of_none_all_zeros(values: list[float]) -> None:
    assert project_capped_simplex(torch.tensor(values), len(values)).numpy() == pytest.approx(1, abs=1e-8)
    assert project_capped_simplex(torch.tensor(values), 0).numpy() == pytest.approx(0, abs=1e-8)


def test_projection_keeps_its_sum_where_steps_are_huge() -> None:
    a = torch.randn(5000, generator=torch.Generator().manual_seed(0)) * 1e5
    assert float(project_capped_simplex(a, 500).sum()) == pytest.approx(500, abs=1e-4)


def test_impossible_projections_are_refused() -> None:
    with pytest.raises(ValueError, match="no 2 shares sum to 3"):
        project_capped_simplex(torch.zeros(2), 3)
    with pytest.raises(ValueError, match="no numbers"):
        project_capped_simplex(torch.tensor([0.0, float("nan")]), 1)


def _logistic(data: Labelled, weights: Tensor) -> Tensor:
    """(sets, 3, 5) weights and biases of L2-regularised logistic regression on 1 - w of each row, by Newton steps."""
    inputs, labels = torch.cat([data.inputs, torch.ones(14, 1).double()], 1), F.one_hot(data.labels, 3).double()
    penalty = torch.tensor([1, 1, 1, 1, 1e-6]).double()
    theta = torch.zeros(len(weights), 3, 5).double()
    for _ in range(25):
        p = (inputs @ theta.mT).softmax(2)
        slope = torch.einsum("bn,bnc,nd->bcd", 1 - weights, p - labels, inputs) + penalty * theta
        spread = torch.diag_embed(p) - p[..., None] * p[..., None, :]
        bend = torch.einsum("bn,bnce,nd,nf->bcdef", 1 - weights, spread, inputs, inputs).reshape(-1, 15, 15)
        bend = bend + penalty.repeat(3).diag()
        theta = theta - torch.linalg.solve(bend, slope.reshape(-1, 15)).view_as(theta)
    assert float(slope.abs().max()) < 1e-8
    return theta


def _linear(table: Tensor) -> Classifier:
    made = Classifier(nn.Sequential(nn.Linear(4, 3)).double(), head="0")
    made.head_layer.weight.data, made.head_layer.bias.data = table[:, :4].clone(), table[:, 4].clone()
    return made


def _iris(draw: int) -> Labelled:
    loaded: Any = load_iris()
    generator = np.random.default_rng(draw)
    rows = np.concatenate([generator.choice(50, size, replace=False) + 50 * c for c, size in enumerate((5, 5, 4))])
    return Labelled(torch.as_tensor(loaded.data[rows]), torch.as_tensor(loaded.target[rows]), ("a", "b", "c"))


def test_the_search_finds_the_best_of_all_91_pairs_of_14_irises() -> None:
    pairs = list(combinations(range(14), 2))
    sets = torch.stack([torch.zeros(14).double().index_fill_(0, torch.tensor(pair), 1.0) for pair in pairs])
    hits = 0
    for draw in range(10):
        data = _iris(draw)
        values = [
            float(row_losses(_linear(table), data)[list(pair)].sum())
            for pair, table in zip(pairs, _logistic(data, sets), strict=True)
        ]
        search = WorstCaseForgetSet(
            2,
            unlearner=lambda model, data, weights, seed: _linear(_logistic(data, weights[None])[0]),
            step=10.0,
            seed=draw,
        )
        found = search.find(_linear(torch.zeros(3, 5).double()), data)
        hits += tuple(found.indices.tolist()) == pairs[int(np.argmin(values))]
    assert hits >= 9


def test_outcomes_of_sign_descent_have_no_slope_in_the_weights(model: Classifier) -> None:
    from demur.editing.weighted import sign_descent

    weights = torch.full((len(DATA),), 0.3, dtype=torch.float64)
    start = sign_descent(model, DATA, weights, epochs=1, seed=2).weights_hash()
    for row in (0, 17, 80):
        nudged = weights.clone()
        nudged[row] += 1e-6
        assert sign_descent(model, DATA, nudged, epochs=1, seed=2).weights_hash() == start
    turned = sign_descent(model, DATA, (torch.arange(len(DATA)) % 2).double(), epochs=1, seed=2)
    assert turned.weights_hash() != start


def test_a_step_of_sign_descent_moves_every_weight_by_the_rate_and_leaves_the_model(model: Classifier) -> None:
    from demur.editing.weighted import sign_descent

    before = model.weights_hash()
    edited = sign_descent(model, DATA, torch.zeros(len(DATA)), epochs=1, learning_rate=1e-2, batch_size=len(DATA))
    moved = [(a - b).detach().abs() for a, b in zip(edited.module.parameters(), model.module.parameters(), strict=True)]
    sizes = torch.cat([m.flatten() for m in moved]).double()
    assert bool(((sizes < 1e-6) | ((sizes - 1e-2).abs() < 1e-6)).all()) and float(sizes.max()) > 0
    assert model.weights_hash() == before


def test_rows_that_are_to_be_forgotten_entirely_are_not_read(model: Classifier) -> None:
    from demur.editing.weighted import sign_descent

    weights = torch.zeros(len(DATA)).index_fill_(0, torch.arange(40), 1.0)
    other = DATA.with_labels(torch.where(weights > 0, (DATA.labels + 1) % 10, DATA.labels))
    assert (
        sign_descent(model, DATA, weights, epochs=1).weights_hash()
        == sign_descent(model, other, weights, epochs=1).weights_hash()
    )


def test_a_heavy_penalty_spreads_the_weights_evenly(model: Classifier) -> None:
    found = WorstCaseForgetSet(12, gamma=1e7, outer_steps=2).find(model, DATA)
    assert found.weights.numpy() == pytest.approx(0.1, abs=1e-5)


def test_the_easiest_set_is_the_worst_one_of_losses_with_the_other_sign(
    model: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    easiest = WorstCaseForgetSet(12, mode="easiest", outer_steps=3, seed=4).find(model, DATA)
    real = worst_case.row_losses
    monkeypatch.setattr(worst_case, "row_losses", lambda model, data: -real(model, data))
    negated = WorstCaseForgetSet(12, outer_steps=3, seed=4).find(model, DATA)
    assert torch.equal(easiest.indices, negated.indices) and torch.equal(easiest.weights, negated.weights)


def test_the_worst_rows_are_fitted_better_than_random_ones_and_the_easiest_worse(model: Classifier) -> None:
    losses = row_losses(model, DATA)
    worst, easiest = (WorstCaseForgetSet(0.1, mode=m, outer_steps=3).find(model, DATA) for m in ("worst", "easiest"))
    assert len(worst.indices) == len(easiest.indices) == 12
    assert losses[worst.indices].mean() < 0.1 * losses.mean() < losses[easiest.indices].mean()
    assert float(worst.weights.sum()) == pytest.approx(12, abs=1e-4)
    assert rank_by_loss(model, DATA, 12).tolist() == sorted(losses.argsort()[:12].tolist())


def test_a_short_step_returns_the_random_start_and_every_step_begins_at_the_trained_model(model: Classifier) -> None:
    seen = []

    def watched(model: Classifier, data: Labelled, weights: Tensor, seed: int) -> Classifier:
        seen.append((model.weights_hash(), float(weights.sum())))
        return model

    found = WorstCaseForgetSet(12, unlearner=watched, step=1e-6, outer_steps=3, seed=9).find(model, DATA)
    start = np.sort(np.random.default_rng([9, 16]).permutation(120)[:12])
    assert found.indices.tolist() == start.tolist()
    assert {name for name, _ in seen} == {model.weights_hash()}
    assert [total for _, total in seen] == pytest.approx([12, 12, 12])


def test_weights_become_a_set_again_every_so_many_steps(model: Classifier) -> None:
    seen: list[Tensor] = []

    def watched(model: Classifier, data: Labelled, weights: Tensor, seed: int) -> Classifier:
        seen.append(weights.clone())
        return model

    WorstCaseForgetSet(12, unlearner=watched, step=1.0, gamma=0.01, outer_steps=4, binarize_every=2).find(model, DATA)
    assert [bool(((w == 0) | (w == 1)).all()) for w in seen] == [True, False, True, False]


def test_whole_groups_are_weighed_by_their_rows_mean_loss(model: Classifier) -> None:
    seen: list[Tensor] = []

    def watched(model: Classifier, data: Labelled, weights: Tensor, seed: int) -> Classifier:
        seen.append(weights)
        return model

    search = WorstCaseForgetSet(2, unlearner=watched, groups=DATA.labels, outer_steps=3)
    found = search.find(model, DATA)
    losses = row_losses(model, DATA)
    by_class = torch.stack([losses[DATA.labels == c].mean() for c in range(10)])
    assert found.indices.tolist() == sorted(by_class.argsort()[:2].tolist())
    for weights in seen:
        assert all(len(weights[DATA.labels == c].unique()) == 1 for c in range(10))


def test_another_method_forgets_the_rows_of_the_highest_weights(model: Classifier) -> None:
    found = WorstCaseForgetSet(12, unlearner="ga", options={"epochs": 1}, outer_steps=2).find(model, DATA)
    assert len(found.indices) == 12 and len(found.history) == 2
    by_class = WorstCaseForgetSet(2, unlearner="ft", groups=DATA.labels, outer_steps=1)
    assert len(by_class.find(model, DATA).indices) == 2
    named = WorstCaseForgetSet(2, unlearner="ga", options={"epochs": 1}, groups=DATA.labels, outer_steps=1)
    assert len(named.find(model, DATA).indices) == 2


def test_difficulty_is_what_a_model_without_the_rows_does_on_them(model: Classifier) -> None:
    test = read_labelled("digits:test[0:100]")
    found = forget_set_difficulty(model, DATA.subset(range(20)), DATA.subset(range(20, 120)), test).summary
    predicted = model.predict(DATA.subset(range(20))).argmax(1)
    assert found["unlearning_accuracy"] == pytest.approx(float((predicted != DATA.labels[:20]).float().mean()))
    assert found["loss"] == pytest.approx(float(row_losses(model, DATA)[:20].mean()))
    assert found["test_accuracy"] == pytest.approx(float((model.predict(test).argmax(1) == test.labels).float().mean()))
    assert 0 <= found["mia_nonmember_rate"] <= 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"size": 0}, "size 0 is no part of 120 rows"),
        ({"size": 120}, "size 120 is no part"),
        ({"size": 1.5}, "size 1.5 is no part"),
        ({"size": 0.001}, "is no part"),
        ({"size": 2, "groups": [0, 1]}, "2 group numbers for 120 rows"),
        ({"size": 2, "groups": [0, 2] * 60}, "without gaps"),
        ({"size": 2, "groups": [0, 1] * 60}, "no part of 2 groups"),
        ({"size": 2, "mode": "best"}, "worst or easiest"),
        ({"size": 2, "outer_steps": 0}, "at least 1"),
        ({"size": 2, "step": 0.0}, "step must be"),
        ({"size": 2, "unlearner": "gaa"}, "unknown editing method"),
    ],
    ids=str,
)
def test_what_cannot_be_searched_is_refused(model: Classifier, given: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        WorstCaseForgetSet(**given).find(model, DATA)


def test_losses_that_are_no_numbers_are_refused(model: Classifier) -> None:
    def broken(model: Classifier, data: Labelled, weights: Tensor, seed: int) -> Classifier:
        copy = model.copied()
        torch.nn.init.constant_(copy.head_layer.weight, float("nan"))
        return copy

    with pytest.raises(DemurError, match="no numbers"):
        WorstCaseForgetSet(2, unlearner=broken).find(model, DATA)
