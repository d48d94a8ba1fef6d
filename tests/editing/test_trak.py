from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from demur.data.labelled import Labelled
from demur.editing.datamodels import agreement
from demur.editing.trak import _projection, jackknife, trak
from demur.errors import DemurError, UsageError
from demur.lab.digits import new_resnet
from demur.models.classifier import Classifier

DECAY = 2.0


def blobs(rows: int = 40, seed: int = 0) -> Labelled:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(rows) % 3
    return Labelled(torch.randn(rows, 4, generator=generator) + labels[:, None] * 0.7, labels, ("a", "b", "c"))


def linear() -> Classifier:
    torch.manual_seed(0)
    return Classifier(nn.Sequential(nn.Linear(4, 3, bias=False)).double(), head="0")


def at_minimum(data: Labelled, loss: object, model: Classifier | None = None) -> Classifier:
    """Trained to the end by Newton's method."""
    model = model or linear()
    weight = model.head_layer.weight
    inputs, labels = data.inputs.double(), data.labels

    def total(w: Tensor) -> Tensor:
        return loss(inputs @ w.view(3, 4).T, labels).sum() + DECAY / 2 * w.square().sum()  # type: ignore[operator]

    flat = weight.detach().flatten()
    for _ in range(20):
        flat = flat - torch.linalg.solve(torch.func.hessian(total)(flat), torch.func.grad(total)(flat))
    weight.data.copy_(flat.view(3, 4))
    return model


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels, reduction="none")


def squared(logits: Tensor, labels: Tensor) -> Tensor:
    return (logits - F.one_hot(labels, 3)).square().sum(1) / 2


def test_the_jackknife_is_leaving_one_out_to_first_order() -> None:
    data = blobs(240)
    model = at_minimum(data, cross_entropy)
    beta = jackknife(model, data, decay=DECAY).dense().beta
    whole = data.inputs.double() @ model.head_layer.weight.detach().T
    for i in (0, 7, 31):
        rest = data.subset([j for j in range(240) if j != i])
        without = data.inputs.double() @ at_minimum(rest, cross_entropy).head_layer.weight.detach().T
        correlation, scale = agreement(torch.from_numpy(beta[i]), whole - without)
        assert correlation > 0.995 and scale == pytest.approx(1, abs=0.05)


def test_of_least_squares_it_is_the_closed_form_without_its_denominator() -> None:
    data = blobs()
    model = at_minimum(data, squared)
    x, y = data.inputs.double(), F.one_hot(data.labels, 3).double()
    inverse = torch.linalg.inv(x.T @ x + DECAY * torch.eye(4).double())
    weight = model.head_layer.weight.detach().T
    h = torch.einsum("ij,jk,ik->i", x, inverse, x)
    beta = torch.from_numpy(jackknife(model, data, decay=DECAY, loss=squared).dense().beta).double()
    residual = y - x @ weight
    expected = torch.einsum("tj,jk,ik,ic->itc", x, inverse, x, residual)
    assert torch.allclose(beta, expected, atol=1e-6)
    rest = data.subset([j for j in range(40) if j != 9])
    moved = x @ (weight - at_minimum(rest, squared).head_layer.weight.detach().T)
    assert torch.allclose(expected[9] / (1 - h[9]), moved, atol=1e-9)


def test_the_sum_over_rows_is_first_order_only() -> None:
    data = blobs(240)
    model = at_minimum(data, squared)
    found = jackknife(model, data, decay=DECAY, loss=squared).dense()
    x, weight = data.inputs.double(), model.head_layer.weight.detach().T
    errors = []
    for count in (1, 8, 64):
        moved = x @ (weight - at_minimum(data.subset(range(count, 240)), squared).head_layer.weight.detach().T)
        errors.append(float((found.removed(range(count), data.ids) - moved).norm() / moved.norm()))
    assert errors[0] < 0.05 and errors == sorted(errors) and errors[2] > 0.15


def test_what_is_not_convex_or_too_large_is_refused() -> None:
    torch.manual_seed(0)
    net = Classifier(nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double(), head="2")
    with pytest.raises(DemurError, match="not convex there"):
        jackknife(net, blobs(), decay=0.0)
    with pytest.raises(UsageError, match="too many for a Hessian"):
        jackknife(new_resnet(), blobs(), decay=1.0)


def test_trak_is_its_formula_where_nothing_is_projected() -> None:
    data, model = blobs(), at_minimum(blobs(), cross_entropy).copied()
    model.module.float()
    z = model.predict(data)
    p = z.softmax(1)
    rows = torch.arange(len(data))
    # The margin's gradient with respect to the logits: 1 at the label, minus the others' softmax among themselves.
    others = z.scatter(1, data.labels[:, None], -torch.inf).softmax(1)
    slope = F.one_hot(data.labels, 3) - others
    phi = torch.einsum("ic,ij->icj", slope, data.inputs).flatten(1)
    gram = phi.T @ phi
    gram += 1e-3 * gram.diagonal().mean() * torch.eye(len(gram))
    left = torch.linalg.solve(gram, phi.T).T * (1 - p[rows, data.labels])[:, None]
    found = trak([model], data, output="margin", dimension=None)
    assert np.allclose(found.dense().beta[:, :, 0], (left @ phi.T).numpy(), atol=1e-4)
    logits = trak([model, model], data, data.subset([4, 5]), dimension=None).dense().beta
    gradient = torch.einsum("cd,tj->tcdj", torch.eye(3), data.inputs[[4, 5]]).flatten(2)
    assert np.allclose(logits, torch.einsum("iw,tcw->itc", left, gradient).numpy(), atol=1e-4)


def test_trak_points_where_leaving_out_points() -> None:
    data = blobs(60)
    model = at_minimum(data, cross_entropy)
    exact = jackknife(model, data, decay=DECAY).dense().beta
    model.module.float()
    found = trak([model], data, dimension=None).dense().beta
    # A logit's level is free: compare what a row does to the differences between classes.
    centred = [torch.from_numpy(b - b.mean(2, keepdims=True)) for b in (found, exact)]
    assert agreement(*centred)[0] > 0.8


def test_projections_keep_inner_products_in_the_mean() -> None:
    model = new_resnet()
    weights = sum(p.numel() for p in model.module.parameters())
    a, b = torch.randn(2, weights, generator=torch.Generator().manual_seed(0)) / weights**0.5
    b = b + a
    found = []
    for seed in range(100):
        one, two = _projection(model, 64, seed)(torch.stack([a, b])[:, None])[:, 0]
        found.append(float(one @ two))
    mean, error = float(np.mean(found)), float(np.std(found)) / 10
    assert mean == pytest.approx(float(a @ b), abs=4 * error)
    assert 0.05 < float(np.std(found)) < 0.4  # about sqrt(2 / 64) times the lengths


def test_it_runs_through_a_network_with_batch_normalisation() -> None:
    data = Labelled(torch.rand(6, 1, 8, 8), torch.arange(6), tuple("0123456789"))
    found = trak([new_resnet()], data, data.subset([1, 2]), dimension=32)
    assert found.left.shape == (6, 32) and found.right.shape == (2, 10, 32)
    with pytest.raises(ValueError, match="output margin or logits"):
        trak([], data)
