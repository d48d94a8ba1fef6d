from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from demur.objectives import supcon

Z = torch.tensor([[1, 0], [0.6, 0.8], [0, 1], [-5, 1]], dtype=torch.float64)
LABELS = torch.tensor([0, 0, 1, 1])


def test_the_worked_losses() -> None:
    each = supcon(Z, LABELS, 0.1, 0.1, reduction="none")
    torch.testing.assert_close(each, torch.tensor([0.002476, 2.126932, 6.041554, 0.001887]).double(), atol=1e-6, rtol=0)
    assert float(supcon(Z, LABELS, 0.1, 0.1)) == pytest.approx(2.043212, abs=1e-6)
    assert float(supcon(Z, LABELS)) == pytest.approx(2.918875, abs=1e-6)


@given(seed=st.integers(0, 99), scale=st.floats(0.1, 10), temperature=st.floats(0.05, 2))
def test_it_is_the_plain_sum_over_pairs_and_does_not_depend_on_length_or_order(
    seed: int, scale: float, temperature: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(8, 3, generator=generator, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 0, 0, 1, 2, 2])
    unit = F.normalize(z, dim=1)
    total = 0.0
    for i in range(8):
        others = [a for a in range(8) if a != i]
        below = sum(torch.exp(unit[i] @ unit[a] / temperature) for a in others)
        own = [a for a in others if labels[a] == labels[i]]
        total -= sum(float(torch.log(torch.exp(unit[i] @ unit[p] / temperature) / below)) for p in own) / len(own)
    found = supcon(z * scale, labels, temperature)
    assert float(found) == pytest.approx(total / 8 * temperature / 0.07, rel=1e-9)
    order = torch.randperm(8, generator=generator)
    torch.testing.assert_close(supcon(z[order], labels[order], temperature), found)


def test_gradients_are_finite_and_right_where_exponentials_overflow() -> None:
    z = (Z + 0.1).clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: supcon(x, LABELS, 0.3), (z,))
    supcon(Z.float().requires_grad_(), LABELS, 1e-3).backward()
    far = Z.float().clone().requires_grad_()
    supcon(far, LABELS, 1e-3).backward()
    assert far.grad is not None and far.grad.isfinite().all()


@pytest.mark.parametrize(
    ("z", "labels", "options", "said"),
    [
        (Z, torch.tensor([0, 0, 1, 2]), {}, "class 1 has one sample only: give at least two views"),
        (Z, LABELS[:3], {}, r"labels"),
        (Z, LABELS, {"temperature": 0.0}, "temperatures must be positive"),
        (Z, LABELS, {"base_temperature": -1.0}, "temperatures must be positive"),
    ],
)
def test_bad_calls_are_refused(z: torch.Tensor, labels: torch.Tensor, options: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        supcon(z, labels, **options)
