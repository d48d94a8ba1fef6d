from __future__ import annotations

import pytest
import torch
from torch import Tensor

from demur.data.labelled import ForgetSplit
from demur.editing import edit
from demur.editing.influence import conjugate_gradients, influence_direction, running_wood_fisher
from demur.errors import UsageError
from demur.models.classifier import Classifier

DAMPING = 0.5


def _ridge(rows: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, 5, generator=generator, dtype=torch.float64)
    noise = torch.randn(rows, generator=generator, dtype=torch.float64)
    return x, x @ torch.arange(5.0, dtype=torch.float64) + noise


def _solve(x: Tensor, y: Tensor) -> Tensor:
    """argmin of mean (xw - y)²/2 + λ/2 ‖w‖²."""
    return torch.linalg.solve(x.T @ x / len(x) + DAMPING * torch.eye(5, dtype=torch.float64), x.T @ y / len(x))


@pytest.mark.parametrize("gone", [1, 40])
def test_one_newton_step_around_the_retain_rows_is_ridge_regression_without_the_others(gone: int) -> None:
    x, y = _ridge(200)
    forget, retain = torch.arange(gone), torch.arange(gone, 200)
    way = influence_direction(
        lambda w, rows: 0.5 * (x[rows] @ w - y[rows]).square(),
        _solve(x, y),
        forget,
        retain,
        curvature="hessian",
        damping=DAMPING,
        tolerance=1e-12,
    )
    torch.testing.assert_close(_solve(x, y) + way, _solve(x[retain], y[retain]), rtol=0, atol=1e-9)


def test_around_all_rows_it_is_so_to_first_order() -> None:
    # The forget rows are the same ones over and over, so that only their share changes.
    errors, way_long = [], []
    base = _ridge(4)
    for rows in (200, 400, 800):
        x, y = (torch.cat([f, r]) for f, r in zip(base, _ridge(rows - 4), strict=True))
        forget, retain = torch.arange(4), torch.arange(4, rows)
        start, aim = _solve(x, y), _solve(x[retain], y[retain])
        way = influence_direction(
            lambda w, rows, x=x, y=y: 0.5 * (x[rows] @ w - y[rows]).square(),
            start,
            forget,
            retain,
            around=torch.arange(rows),
            curvature="hessian",
            damping=DAMPING,
            tolerance=1e-12,
        )
        errors.append(float((start + way - aim).norm()))
        way_long.append(float((start - aim).norm()))
    for before, after in ((0, 1), (1, 2)):
        assert errors[before] / errors[after] == pytest.approx(4, rel=0.25)
        assert way_long[before] / way_long[after] == pytest.approx(2, rel=0.25)
    assert errors[0] < 0.05 * way_long[0]


def _sherman_morrison(gradients: Tensor, vector: Tensor, damping: float) -> Tensor:
    inverse = torch.eye(len(vector), dtype=vector.dtype) / damping
    for g in gradients:
        side = inverse @ g
        inverse = inverse - torch.outer(side, side) / (len(gradients) + g @ side)
    return inverse @ vector


def test_the_fisher_inverse_is_sherman_and_morrisons_and_the_running_vector_is_not() -> None:
    generator = torch.Generator().manual_seed(0)
    gradients = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    slope = torch.randn(4, generator=generator, dtype=torch.float64)
    everything = torch.cat([gradients, slope[None]])
    exact = _sherman_morrison(gradients, slope, damping=1.0)
    # Losses that are linear in the weights have these gradients; the last row is the one to forget.
    way = influence_direction(
        lambda w, rows: everything[rows] @ w,
        torch.zeros(4, dtype=torch.float64),
        torch.tensor([6]),
        torch.arange(6),
        tolerance=1e-12,
    )
    removed = (slope - gradients.mean(0)) / 7
    torch.testing.assert_close(way, _sherman_morrison(gradients, removed, damping=1.0), rtol=0, atol=1e-10)
    inverse = conjugate_gradients(lambda v: gradients.T @ (gradients @ v) / 6 + v, slope, tolerance=1e-12)
    torch.testing.assert_close(inverse, exact, rtol=0, atol=1e-10)
    running = running_wood_fisher(gradients, slope, samples=6)
    assert float((running - exact).abs().max()) > 0.1 * float(exact.abs().max())


def test_conjugate_gradients_stop_before_a_direction_of_no_curvature() -> None:
    found = conjugate_gradients(lambda v: torch.tensor([1.0, -1.0]) * v, torch.tensor([0.0, 1.0]))
    assert found.tolist() == [0, 0]


def test_a_long_step_forgets_and_a_step_of_none_changes_nothing(trained: Classifier, split: ForgetSplit) -> None:
    def accuracy(alpha: float, **options: object) -> tuple[float, float]:
        edited = edit("influence", trained, split.forget, split.retain, alpha=alpha, **options)
        hits = [(edited.predict(d).argmax(1) == d.labels).float().mean() for d in (split.forget, split.retain)]
        return float(hits[0]), float(hits[1])

    still = edit("influence", trained, split.forget, split.retain, alpha=0.0)
    assert still.weights_hash() == trained.weights_hash() and still.facts["step"] == 0
    before, after = accuracy(0.0), accuracy(10.0)
    assert after[0] < before[0] - 0.3 and after[1] > before[1] - 0.1
    assert accuracy(10.0, curvature="hessian") != after != accuracy(10.0, compat="salun")


def test_unknown_options_are_refused(trained: Classifier, split: ForgetSplit) -> None:
    for options in ({"curvature": "flat"}, {"compat": "other"}, {"damping": 0.0}):
        with pytest.raises(UsageError, match="influence needs curvature fisher or hessian"):
            edit("influence", trained, split.forget, split.retain, **options)
