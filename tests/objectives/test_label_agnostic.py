from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from demur.objectives import laf_alignment_loss, laf_extractor_loss


def _apart(distances: tuple[float, ...], width: int = 4) -> tuple[Tensor, Tensor]:
    """Two sets of rows with these squared distances."""
    torch.manual_seed(0)
    first = torch.randn(len(distances), width, dtype=torch.float64)
    way = torch.nn.functional.normalize(torch.randn(len(distances), width, dtype=torch.float64))
    return first, first + way * torch.tensor(distances, dtype=torch.float64).sqrt()[:, None]


def _turned(turns: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """Two sets of rows whose 1 - cosine is this, of unlike lengths."""
    cosines = 1 - torch.tensor(turns, dtype=torch.float64)
    first = torch.tensor([[2.0, 0.0]], dtype=torch.float64).expand(len(turns), 2)
    return first, 3 * torch.stack([cosines, (1 - cosines.square()).sqrt()], 1)


def test_the_extractor_loss_of_five_distances() -> None:
    kept, left = _apart((0.5, 2, 8)), _apart((1, 3))
    assert float(laf_extractor_loss(*kept, *left)) == pytest.approx(2.010051, abs=1e-6)
    alone = laf_extractor_loss(*kept, *_apart((0.0,)))
    assert float(alone) + 1 == pytest.approx(5.775772, abs=1e-6)


def test_the_extractor_loss_vanishes_when_both_sides_are_the_same() -> None:
    rows = _apart((0.5, 2, 8))
    assert float(laf_extractor_loss(*rows, *rows)) == 0


@given(st.floats(0, 1e6))
def test_a_row_counts_between_one_and_e_and_its_pull_is_the_derivative(distance: float) -> None:
    away = torch.tensor(distance, dtype=torch.float64).sqrt().reshape(1, 1).requires_grad_()
    zero = torch.zeros(1, 1, dtype=torch.float64)
    value = laf_extractor_loss(away, zero, zero, zero) + 1
    assert 1 <= float(value.detach()) <= math.e
    (slope,) = torch.autograd.grad(value, away)
    d = distance
    assert float(slope) == pytest.approx(math.exp(d / (d + 1)) / (d + 1) ** 2 * 2 * math.sqrt(d), rel=1e-6, abs=1e-12)


def test_the_alignment_loss_of_four_turns() -> None:
    loss = laf_alignment_loss(*_turned((0.1, 0.3)), *_turned((0.5, 1.2)), temperature=20)
    assert float(loss) == pytest.approx(-1.071600, abs=1e-6)


def test_the_alignment_loss_starts_at_a_number_of_the_batches_alone_and_without_a_gradient() -> None:
    torch.manual_seed(0)
    kept, left = (torch.randn(32, 64, dtype=torch.float64).requires_grad_() for _ in range(2))
    loss = laf_alignment_loss(kept, kept.detach(), left, left.detach())
    assert float(loss) == pytest.approx(-110.903549, abs=1e-6)
    slopes = torch.autograd.grad(loss, (kept, left))
    assert all(float(slope.norm()) < 1e-13 for slope in slopes)


def test_the_alignment_loss_falls_as_forgotten_features_turn_away_and_rises_as_retained_do() -> None:
    still, turned = _turned((0.0, 0.0)), _turned((0.5, 0.5))
    start = float(laf_alignment_loss(*still, *still))
    assert float(laf_alignment_loss(*still, *turned)) < start < float(laf_alignment_loss(*turned, *still))


def test_no_gradient_reaches_the_teacher() -> None:
    rows, teacher = torch.randn(3, 4), torch.randn(3, 4, requires_grad=True)
    loss = laf_alignment_loss(rows.requires_grad_(), teacher, rows, teacher)
    assert torch.autograd.grad(loss, teacher, allow_unused=True) == (None,)


def test_unfit_tensors_are_refused() -> None:
    two, three, none = torch.ones(2, 4), torch.ones(3, 4), torch.ones(0, 4)
    for loss in (laf_extractor_loss, laf_alignment_loss):
        with pytest.raises(ValueError, match="shapes differ"):
            loss(two, three, two, two)
        with pytest.raises(ValueError, match="both sides need rows, not 2 to retain and 0"):
            loss(two, two, none, none)
    with pytest.raises(ValueError, match="temperature must be above 0"):
        laf_alignment_loss(two, two, two, two, temperature=0)
