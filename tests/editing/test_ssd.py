from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from demur.data.labelled import ForgetSplit, Labelled
from demur.editing import edit, fisher_diagonal
from demur.editing.ssd import dampen
from demur.errors import UsageError
from demur.models.classifier import Classifier
from editing.conftest import small_net
from editing.test_registry import accuracy

THETA = torch.tensor([1.0, -2.0, 0.5, 3.0])
TRAIN, FORGET = torch.tensor([0.5, 0.02, 0.3, 0.001]), torch.tensor([0.6, 0.5, 0.2, 0.05])


def test_the_worked_step() -> None:
    new, selected = dampen(THETA, FORGET, TRAIN, alpha=10, lam=1)
    assert selected.tolist() == [False, True, False, True]
    torch.testing.assert_close(new, torch.tensor([1.0, -0.08, 0.5, 0.06]))
    new, again = dampen(THETA, FORGET, TRAIN, alpha=5, lam=2)
    assert again.tolist() == selected.tolist()
    torch.testing.assert_close(new, torch.tensor([1.0, -0.16, 0.5, 0.12]))


@given(alpha=st.floats(0.1, 50), lam=st.floats(0, 20), seed=st.integers(0, 99))
def test_weights_never_grow_and_only_selected_ones_change(alpha: float, lam: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    theta = torch.randn(20, generator=generator)
    own, every = (torch.rand(20, generator=generator) * (torch.rand(20, generator=generator) > 0.2) for _ in range(2))
    new, selected = dampen(theta, own, every, alpha, lam)
    assert (new.abs() <= theta.abs()).all() and (new[~selected] == theta[~selected]).all() and new.isfinite().all()
    if lam == 0:
        assert (new[selected] == 0).all()


def test_importance_is_the_mean_of_squared_gradients_of_single_samples(split: ForgetSplit) -> None:
    model, data = small_net(), split.forget.subset(range(7))
    found = fisher_diagonal(model, data, batch_size=3)
    total = {name: torch.zeros_like(p) for name, p in model.module.named_parameters()}
    for row in range(len(data)):
        inputs, labels = data.batch(slice(row, row + 1))
        model.module.zero_grad()
        F.cross_entropy(model.logits(inputs), labels).backward()
        for name, p in model.module.named_parameters():
            assert p.grad is not None
            total[name] += p.grad.square() / len(data)
    for name, value in total.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-9)


def test_importance_of_softmax_regression_is_its_closed_form() -> None:
    torch.manual_seed(0)
    model = Classifier(nn.Sequential(nn.Linear(4, 3)), head="0")
    data = Labelled(torch.randn(9, 4), torch.arange(9) % 3, ("a", "b", "c"))
    error = model.predict(data).softmax(1) - F.one_hot(data.labels, 3)
    expected = torch.einsum("ic,ij->cj", error.square(), data.inputs.square()) / 9
    torch.testing.assert_close(fisher_diagonal(model, data)["0.weight"], expected)


def test_batch_importance_squares_the_gradient_of_the_batch(split: ForgetSplit) -> None:
    model, data = small_net(), split.forget.subset(range(7))
    parts: list[Tensor] = []
    for start in (0, 4):
        inputs, labels = data.batch(slice(start, start + 4))
        model.module.zero_grad()
        F.cross_entropy(model.logits(inputs), labels).backward()
        grad = model.head_layer.weight.grad
        assert grad is not None
        parts.append(grad.square().clone())
    found = fisher_diagonal(model, data, fisher="batch", batch_size=4)["3.weight"]
    torch.testing.assert_close(found, (parts[0] + parts[1]) / 2, rtol=1e-5, atol=1e-9)


def test_the_label_free_importance_reads_no_label(split: ForgetSplit) -> None:
    wrong = split.forget.with_labels((split.forget.labels + 1) % 10)
    right, other = (fisher_diagonal(small_net(), d, loss="logit_norm") for d in (split.forget, wrong))
    assert all(torch.equal(right[name], other[name]) for name in right)


def test_a_class_is_forgotten_and_the_rest_stays(trained: Classifier, split: ForgetSplit) -> None:
    edited = edit("ssd", trained, split.forget, split.retain, alpha_relative=0.4)
    assert accuracy(trained, split.forget) > 0.9
    assert accuracy(edited, split.forget) <= 0.3 and accuracy(edited, split.retain) >= 0.75
    assert 0.001 < edited.facts["selected"] < 0.2


def test_at_its_bound_alpha_selects_nothing_and_says_so(trained: Classifier, split: ForgetSplit) -> None:
    with pytest.warns(UserWarning, match="dampened nothing"):
        same = edit("ssd", trained, split.forget, split.retain, alpha_relative=1.001)
    assert same.weights_hash() == trained.weights_hash()


def test_kept_importances_give_the_same_model_and_must_fit_it(trained: Classifier, split: ForgetSplit) -> None:
    kept = fisher_diagonal(trained, split.retain.joined(split.forget))
    whole = edit("ssd", trained, split.forget, split.retain, alpha=3.0)
    spared = edit("ssd", trained, split.forget, split.retain, alpha=3.0, importances=kept)
    assert whole.weights_hash() == spared.weights_hash()
    with pytest.raises(UsageError, match=r"of another model: 3\.bias"):
        edit("ssd", trained, split.forget, split.retain, importances={n: v for n, v in kept.items() if n != "3.bias"})


@pytest.mark.parametrize(("alpha", "lam"), [(0.0, 1.0), (-1.0, 1.0), (1.0, -0.1)])
def test_options_out_of_range_are_refused(alpha: float, lam: float) -> None:
    with pytest.raises(ValueError, match="alpha must be above 0 and lam at least 0"):
        dampen(THETA, FORGET, TRAIN, alpha, lam)
