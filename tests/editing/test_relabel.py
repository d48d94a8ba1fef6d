from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from demur.data.labelled import ForgetSplit
from demur.editing import edit
from demur.editing.relabel import saliency_mask
from demur.errors import UsageError
from demur.lab.digits import new_resnet
from demur.models.classifier import Classifier
from editing.test_registry import accuracy

SHORT = {"seed": 1, "epochs": 2}


@pytest.mark.parametrize("order", ["forget-first", "mixed"])
def test_random_labels_take_the_class_away_and_leave_the_rest(
    order: str, trained: Classifier, split: ForgetSplit
) -> None:
    edited = edit("rl", trained, split.forget, split.retain, order=order, learning_rate=0.05)
    assert accuracy(edited, split.forget) <= 0.5 and accuracy(edited, split.retain) >= 0.9


def test_the_orders_differ_and_an_unknown_one_is_refused(trained: Classifier, split: ForgetSplit) -> None:
    one, other = (edit("rl", trained, split.forget, split.retain, order=o, **SHORT) for o in ("forget-first", "mixed"))
    assert one.weights_hash() != other.weights_hash()
    with pytest.raises(UsageError, match="order must be one of forget-first, mixed, not 'first'"):
        edit("rl", trained, split.forget, split.retain, order="first")


def labels_taught(name: str, trained: Classifier, split: ForgetSplit, monkeypatch: pytest.MonkeyPatch) -> list:  # type: ignore[type-arg]
    """The labels that each call of `Labelled.with_labels` gave to the forget rows."""
    seen = []
    original = type(split.forget).with_labels
    monkeypatch.setattr(
        type(split.forget), "with_labels", lambda self, labels: seen.append(labels) or original(self, labels)
    )
    edit(name, trained, split.forget, split.retain, seed=1, epochs=40, learning_rate=1e-6)
    return seen


def test_random_labels_are_uniform_over_all_classes_and_drawn_anew(
    trained: Classifier, split: ForgetSplit, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = labels_taught("rl", trained, split, monkeypatch)
    assert len(seen) == 40 and not torch.equal(seen[0], seen[1])
    shares = torch.bincount(torch.cat(seen), minlength=10) / (40 * len(split.forget))
    assert (shares - 0.1).abs().max() < 0.03


def test_amnesiac_labels_are_never_right_and_drawn_once(
    trained: Classifier, split: ForgetSplit, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = labels_taught("amnesiac", trained, split, monkeypatch)
    assert len(seen) == 1
    assert (seen[0] != split.forget.labels).all() and len(seen[0].unique()) >= 6


def test_salun_of_all_weights_is_random_labels_bit_for_bit(trained: Classifier, split: ForgetSplit) -> None:
    for model in (trained, new_resnet()):
        rl, salun = (
            edit(name, model, split.forget, split.retain, **SHORT, **more)
            for name, more in (("rl", {}), ("salun", {"q": 1.0}))
        )
        assert rl.weights_hash() == salun.weights_hash()


def test_salun_moves_chosen_weights_only_in_spite_of_weight_decay_and_momentum(
    trained: Classifier, split: ForgetSplit
) -> None:
    mask = saliency_mask(trained, split.forget, 0.3)
    edited = edit("salun", trained, split.forget, split.retain, q=0.3, **SHORT)
    before = dict(trained.module.named_parameters())
    moved = {name: p != before[name] for name, p in edited.module.named_parameters()}
    assert not any(bool((moved[name] & ~mask[name]).any()) for name in mask)
    assert sum(int((moved[name] & mask[name]).sum()) for name in mask) > 100
    assert edited.facts["salient"] == {name: float(m.float().mean()) for name, m in mask.items()}
    assert not any(p._backward_hooks for p in edited.module.parameters())


def test_saliency_is_one_ranking_of_summed_gradients_over_all_parameters(
    trained: Classifier, split: ForgetSplit
) -> None:
    mask = saliency_mask(trained, split.forget, 0.2, batch_size=10)
    copy = trained.copied()
    for start in range(0, len(split.forget), 10):  # gradients of the batches add up
        inputs, labels = split.forget.batch(slice(start, start + 10))
        F.cross_entropy(copy.logits(inputs), labels).backward()
    grads = {name: p.grad.abs() for name, p in copy.module.named_parameters() if p.grad is not None}
    inside = torch.cat([grads[name][mask[name]] for name in mask])
    outside = torch.cat([grads[name][~mask[name]] for name in mask])
    assert inside.min() >= outside.max()
    total = len(inside) + len(outside)
    assert len(inside) == round(0.2 * total)


def test_a_share_out_of_range_is_refused(trained: Classifier, split: ForgetSplit) -> None:
    with pytest.raises(UsageError, match=r"q must be in \(0, 1\], not 0"):
        edit("salun", trained, split.forget, split.retain, q=0.0)


def test_batch_normalisation_is_told_of(trained: Classifier, split: ForgetSplit) -> None:
    plain, normalised = (
        edit("rl", m, split.forget, split.retain, epochs=1).facts["batch statistics"] for m in (trained, new_resnet())
    )
    assert (plain, normalised) == ("none", "moved with the batches")
