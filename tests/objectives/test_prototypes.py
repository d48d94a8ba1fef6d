from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from demur.objectives import prototype_alignment, relation_distillation

FEATURES = torch.tensor([[1.0, 2.0], [0.5, -1.0]], dtype=torch.float64)
THEIRS = torch.tensor([[0.8, 2.1], [0.4, -0.9]], dtype=torch.float64)
PROTOTYPES = torch.tensor([[1.0, 1.0], [2.0, -1.0]], dtype=torch.float64)
OLD = torch.tensor([[1.2, 0.9], [2.0, -0.8]], dtype=torch.float64)


def test_the_worked_losses() -> None:
    assert float(relation_distillation(FEATURES, PROTOTYPES, THEIRS, OLD)) == pytest.approx(0.005918, abs=1e-6)
    assert float(prototype_alignment(FEATURES, PROTOTYPES, torch.tensor([0, 1]))) == pytest.approx(0.125658, abs=1e-6)


def _random(seed: int, rows: int = 5, classes: int = 3, width: int = 4) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sizes = (rows, classes, rows, classes)
    return [torch.randn(size, width, generator=generator, dtype=torch.float64) for size in sizes]


@pytest.mark.parametrize("axis", ["classes", "samples"])
@given(seed=st.integers(0, 50), temperature=st.floats(0.2, 3))
def test_distillation_is_a_mean_of_divergences_from_the_teacher(axis: Any, seed: int, temperature: float) -> None:
    features, prototypes, theirs, old = _random(seed)
    now = features @ (prototypes / prototypes.norm(dim=1, keepdim=True)).T / temperature
    then = theirs @ (old / old.norm(dim=1, keepdim=True)).T / temperature
    if axis == "samples":
        now, then = now.T, then.T
    p, q = then.softmax(1), now.softmax(1)
    expected = (p * (p.log() - q.log())).sum(1).mean()
    found = relation_distillation(features, prototypes, theirs, old, temperature, axis)
    torch.testing.assert_close(found, expected)
    assert float(found) >= 0


@pytest.mark.parametrize("axis", ["classes", "samples"])
def test_a_model_that_is_its_teacher_has_nothing_to_learn(axis: Any) -> None:
    features, prototypes, *_ = _random(1)
    own, protos = features.clone().requires_grad_(), prototypes.clone().requires_grad_()
    loss = relation_distillation(own, protos, features, prototypes, axis=axis)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0, abs=1e-12)
    for tensor in (own, protos):
        assert tensor.grad is not None
        torch.testing.assert_close(tensor.grad, torch.zeros_like(tensor), atol=1e-12, rtol=0)


@pytest.mark.parametrize("axis", ["classes", "samples"])
def test_gradients_of_the_distillation_are_those_of_finite_differences(axis: Any) -> None:
    features, prototypes, theirs, old = _random(2)

    def loss(f: Tensor, p: Tensor) -> Tensor:
        return relation_distillation(f, p, theirs, old, 0.7, axis)

    assert torch.autograd.gradcheck(loss, (features.requires_grad_(), prototypes.requires_grad_()), eps=1e-6)


def test_nothing_flows_into_the_teacher_nor_from_the_alignment_into_features() -> None:
    tensors = [t.requires_grad_() for t in _random(3)]
    relation_distillation(*tensors).backward()
    assert tensors[2].grad is None and tensors[3].grad is None
    features, prototypes = (t.detach().clone().requires_grad_() for t in tensors[:2])
    prototype_alignment(features, prototypes, torch.tensor([0, 1, 2, 0, 1])).backward()
    assert features.grad is None and prototypes.grad is not None and float(prototypes.grad.abs().sum()) > 0


@given(factor=st.floats(0.1, 50), seed=st.integers(0, 20))
def test_the_length_of_a_prototype_changes_nothing(factor: float, seed: int) -> None:
    features, prototypes, theirs, old = _random(seed)
    longer = prototypes * torch.tensor([[factor], [1.0], [1.0]])
    labels = torch.tensor([0, 1, 2, 0, 1])
    torch.testing.assert_close(
        relation_distillation(features, longer, theirs, old), relation_distillation(features, prototypes, theirs, old)
    )
    torch.testing.assert_close(
        prototype_alignment(features, longer, labels), prototype_alignment(features, prototypes, labels)
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"features": FEATURES[:, :1]}, "of the same dimensions"),
        ({"teacher_features": FEATURES[:1]}, "must have the shapes"),
        ({"teacher_prototypes": PROTOTYPES[:1]}, "must have the shapes"),
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"axis": "rows"}, "axis must be classes or samples"),
    ],
)
def test_bad_calls_are_refused(change: dict[str, Any], said: str) -> None:
    given_ = {
        "features": FEATURES,
        "prototypes": PROTOTYPES,
        "teacher_features": THEIRS,
        "teacher_prototypes": OLD,
        **change,
    }
    with pytest.raises(ValueError, match=said):
        relation_distillation(**given_)


def test_a_label_without_prototype_is_refused() -> None:
    with pytest.raises(ValueError, match="labels must be rows of the 2 prototypes"):
        prototype_alignment(FEATURES, PROTOTYPES, torch.tensor([0, 2]))
