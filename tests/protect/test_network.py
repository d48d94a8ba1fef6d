from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from demur.errors import UsageError
from demur.protect import Network, RobustCounterfactual, deletion_influence, fit_linear
from demur.protect.influence import smooth
from demur.protect.linear import LinearFit, signs
from demur.protect.network import logistic_loss
from protect.people import people, refused

torch.set_num_threads(1)
X, Y = people(60)
RIDGE = 3e-2


def fitted(seed: int = 0, weights: torch.Tensor | None = None, steps: int = 400) -> nn.Sequential:
    """Two layers trained to a minimum, with the penalty on every weight."""
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1)).double()
    weights = torch.ones(len(X), dtype=torch.float64) if weights is None else weights
    optimizer = torch.optim.LBFGS(
        module.parameters(), max_iter=steps, tolerance_grad=1e-10, tolerance_change=1e-16, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        scores = module(torch.tensor(X))[:, 0]
        loss = (weights * logistic_loss(scores, torch.tensor(signs(Y)))).mean()
        loss = loss + RIDGE / 2 * sum((p**2).sum() for p in module.parameters())
        loss.backward()
        return loss

    optimizer.step(closure)  # type: ignore[arg-type]
    return module


MODULE = fitted()


def as_module(fit: LinearFit, outputs: int = 1) -> nn.Linear:
    """A linear fit as a torch module, with one score or two logits."""
    layer = nn.Linear(len(fit.weights), outputs).double()
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.zero_()
        layer.weight[-1], layer.bias[-1] = torch.tensor(fit.weights), fit.bias
    return layer


@pytest.mark.parametrize("curvature", ["gauss-newton", "hessian"])
def test_a_linear_module_has_the_influences_of_the_linear_fit(curvature: str) -> None:
    fit = fit_linear(X, Y, 0.0)
    rows = np.array([3, 5])
    one, other = smooth(fit, X, Y), smooth(Network(as_module(fit), curvature=curvature), X, Y)
    assert other.influence(X[0]) == pytest.approx(one.influence(X[0]), abs=1e-8)
    assert other.influence_gradient(X[0], rows) == pytest.approx(one.influence_gradient(X[0], rows), abs=1e-8)
    assert other.without(rows)(X) == pytest.approx(one.without(rows)(X), abs=1e-5)
    explained = [RobustCounterfactual(model, X, Y, k=2).explain(refused(fit, X)[0]) for model in (fit, as_module(fit))]
    assert explained[1].x == pytest.approx(explained[0].x, abs=1e-4)


def test_two_logits_are_the_score_of_their_difference() -> None:
    fit = fit_linear(X, Y, 0.0)
    module = as_module(fit, outputs=2)
    assert smooth(module, X, Y, damping=1e-9).scores(X) == pytest.approx(fit.scores(X))


def test_gradients_in_the_person_are_finite_differences() -> None:
    explain = RobustCounterfactual(Network(MODULE, ridge=RIDGE), X, Y, k=4)
    deletion = explain._smooth
    assert deletion is not None
    rows = np.array([0, 9, 17])
    for x in X[:5]:
        worst_slope, influence_slope = explain._worst_and_slope(x)[1], deletion.influence_gradient(x, rows)
        for j in range(4):
            step = 1e-5 * np.eye(4)[j]
            worst = (explain.worst(x + step)[0] - explain.worst(x - step)[0]) / 2e-5
            summed = (deletion.influence(x + step)[rows].sum() - deletion.influence(x - step)[rows].sum()) / 2e-5
            assert worst_slope[j] == pytest.approx(worst, abs=1e-5)
            assert influence_slope[j] == pytest.approx(summed, abs=1e-4)


def test_finite_differences_in_a_rows_weight_give_minus_its_influence_at_a_minimum() -> None:
    influence = deletion_influence(Network(MODULE, ridge=RIDGE, curvature="hessian"), X, Y, X[3])
    for i in (0, 11):
        sides = []
        for sign in (1, -1):
            weights = torch.ones(len(X), dtype=torch.float64)
            weights[i] += sign * 1e-3
            with torch.no_grad():
                sides.append(float(fitted(weights=weights)(torch.tensor(X[3]))))
        assert (sides[0] - sides[1]) / 2e-3 == pytest.approx(-influence[i] / len(X), rel=1e-2, abs=1e-5)


@pytest.mark.parametrize("curvature", ["gauss-newton", "hessian"])
def test_conjugate_gradients_solve_what_the_matrix_solves(curvature: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(MODULE, ridge=RIDGE, curvature=curvature)
    dense = deletion_influence(network, X, Y, X[0])
    monkeypatch.setattr("demur.protect.network._DENSE", 0)
    assert deletion_influence(network, X, Y, X[0]) == pytest.approx(dense, abs=1e-5)


def test_the_last_layer_alone_is_a_linear_model_on_its_features() -> None:
    found = deletion_influence(Network(MODULE, ridge=RIDGE, last_layer=True), X, Y, X[0])
    with torch.no_grad():
        features = MODULE[:2](torch.tensor(X)).numpy()
        scores = MODULE(torch.tensor(X))[:, 0].numpy()
    Z, y = np.column_stack([features, np.ones(len(X))]), signs(Y)
    chance = 1 / (1 + np.exp(y * scores))
    hessian = (Z.T * (chance * (1 - chance))) @ Z / len(Z) + RIDGE * np.eye(6)
    assert found == pytest.approx(Z[0] @ np.linalg.solve(hessian, (Z * (-y * chance)[:, None]).T), abs=1e-8)


@pytest.mark.parametrize("solver", ["slsqp", "penalty"])
def test_the_answer_is_accepted_in_the_worst_case_and_no_point_nearer_on_the_way_is(solver: str) -> None:
    explain = RobustCounterfactual(Network(MODULE, ridge=RIDGE), X, Y, k=3, solver=solver)  # type: ignore[arg-type]
    plain = RobustCounterfactual(Network(MODULE, ridge=RIDGE), X, Y, k=0)
    for x0 in X[explain.scores(X) < -0.2][:3]:
        found = explain.explain(x0)
        assert found.valid and found.worst_score == pytest.approx(0, abs=1e-4)
        assert explain.worst(x0 + 0.98 * (found.x - x0))[0] < 0
        assert found.cost > plain.explain(x0).cost


def test_features_that_are_fixed_stay_where_they_are() -> None:
    explain = RobustCounterfactual(Network(MODULE, ridge=RIDGE), X, Y, k=2, actionable=[0, 2], bounds=(0, 1))
    x0 = X[explain.scores(X) < -0.2][0]
    found = explain.explain(x0)
    assert found.valid and found.x[[1, 3]] == pytest.approx(x0[[1, 3]], abs=0)
    assert (found.x >= 0).all() and (found.x <= 1).all()


def test_a_retrainer_of_ones_own_is_asked_with_the_rows_that_are_left() -> None:
    seen = []

    def retrain(weights: torch.Tensor) -> nn.Module:
        seen.append(weights)
        return fitted(weights=weights, steps=2)

    deletion = smooth(Network(MODULE, ridge=RIDGE, retrain=retrain), X, Y)
    deletion.without([4, 7])(X)
    assert seen[0].sum() == len(X) - 2 and not seen[0][[4, 7]].any()


def test_what_cannot_be_expanded_is_refused_in_a_sentence() -> None:
    with pytest.raises(UsageError, match="pass damping"):
        smooth(Network(MODULE), X[:8], Y[:8] if len(set(Y[:8])) > 1 else np.arange(8) % 2)
    with pytest.raises(UsageError, match="one score or two logits"):
        smooth(nn.Linear(4, 3), X, Y)
    with pytest.raises(UsageError, match="gauss-newton or hessian"):
        smooth(Network(MODULE, curvature="newton"), X, Y)
