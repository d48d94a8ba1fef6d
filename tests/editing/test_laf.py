from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from demur.data.labelled import ForgetSplit, Labelled
from demur.editing import edit
from demur.errors import DemurError, UsageError
from demur.models import train_classifier
from demur.models.classifier import Classifier
from demur.objectives import laf_alignment_loss

QUICK = {"steps": 6, "vae_steps": 5}


class Sealed(Labelled):
    """Rows whose labels nobody may look at."""

    def __getattribute__(self, name: str) -> Any:
        if name == "labels" and object.__getattribute__(self, "__dict__").get("sealed"):
            raise AssertionError("a label was read")
        return object.__getattribute__(self, name)


def _sealed(data: Labelled) -> Sealed:
    out = Sealed(data.inputs, data.labels, data.classes, data.ids, data.groups, data.name)
    object.__setattr__(out, "sealed", True)
    return out


def test_no_label_is_read(trained: Classifier, split: ForgetSplit) -> None:
    forget, retain = _sealed(split.forget), _sealed(split.retain)
    with pytest.raises(AssertionError, match="a label was read"):
        forget.batch()
    blind = edit("laf", trained, forget, retain, **QUICK)
    assert blind.weights_hash() == edit("laf", trained, split.forget, split.retain, **QUICK).weights_hash()
    with pytest.raises(AssertionError, match="a label was read"):
        edit("laf", trained, forget, retain, repair=10, **QUICK)


def test_without_a_rate_the_model_comes_back_bit_for_bit(trained: Classifier, split: ForgetSplit) -> None:
    still = edit("laf", trained, split.forget, split.retain, lr_unlearn=0.0, lr_align=0.0, **QUICK)
    assert still.weights_hash() == trained.weights_hash()


def test_a_class_is_forgotten_and_the_others_stay(split: ForgetSplit) -> None:
    torch.manual_seed(0)
    layers = nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.Linear(32, 10)
    model = train_classifier(Classifier(nn.Sequential(*layers), head="4"), split.train, epochs=15, learning_rate=0.1)
    rates = {"lr_unlearn": 1e-3, "lr_align": 3e-3}
    edited = edit("laf", model, split.forget, split.retain, steps=300, vae_steps=300, **rates)
    for data, before, after in ((split.forget, (0.8, 1.0), (0.0, 0.1)), (split.retain, (0.9, 1.0), (0.9, 1.0))):
        for made, (low, high) in ((model, before), (edited, after)):
            assert low <= float((made.predict(data).argmax(1) == data.labels).float().mean()) <= high


def test_in_double_precision_alignment_has_no_gradient_where_it_starts(trained: Classifier, split: ForgetSplit) -> None:
    # What alignment alone does is rounding noise that Adam makes as large as its rate: only the other loss moves it.
    model = trained.copied()
    model.module.double()
    kept, left = (model.features_and_logits(data.inputs[:32].double())[0] for data in (split.retain, split.forget))
    laf_alignment_loss(kept, kept.detach(), left, left.detach()).backward()
    grads = [p.grad for p in model.module.parameters() if p.grad is not None]
    assert grads and sum(float(g.square().sum()) for g in grads) ** 0.5 < 1e-12


def test_the_head_changes_only_when_it_is_repaired(trained: Classifier, split: ForgetSplit) -> None:
    plain = edit("laf", trained, split.forget, split.retain, **QUICK)
    mended = edit("laf", trained, split.forget, split.retain, repair=20, **QUICK)
    by_hand = edit("laf", trained, split.forget, split.retain, repair=split.retain.subset(range(20)), **QUICK)
    names = {name for name, _ in trained.module.named_parameters()}
    before, after = trained.module.state_dict(), plain.module.state_dict()
    changed = {name for name in names if not torch.equal(before[name], after[name])}
    assert changed == {name for name in names if not name.startswith(trained.head)}
    for other in (mended, by_hand):
        repaired = other.module.state_dict()
        moved = {name for name in names if not torch.equal(after[name], repaired[name])}
        assert moved == {name for name in names if name.startswith(trained.head)}


def test_epochs_end_with_the_smaller_set(trained: Classifier, split: ForgetSplit) -> None:
    edited = edit("laf", trained, split.forget, split.retain, epochs=3, vae_steps=1, batch_size=8)
    assert edited.facts["steps"] == 3 * -(-len(split.forget) // 8)
    assert set(edited.facts["reconstruction"]) == {"all rows", "forget rows"}


def test_what_cannot_be_done_is_refused(trained: Classifier, split: ForgetSplit) -> None:
    for options, said in (
        ({"feature_layer": "body.9"}, "has no layer 'body.9': it has 0, 1, 2, 3"),
        ({"decoder_activation": "tanh"}, "decoder_activation must be sigmoid or none"),
        ({"temperature": 0.0}, "temperature must be above 0"),
    ):
        with pytest.raises(UsageError, match=said):
            edit("laf", trained, split.forget, split.retain, **QUICK, **options)
    flat = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), head="1")
    with pytest.raises(UsageError, match="come before any weight"):
        edit("laf", flat, split.forget, split.retain, **QUICK)
    broken = trained.copied()
    with torch.no_grad():
        next(broken.module.parameters()).fill_(float("nan"))
    with pytest.raises(DemurError, match="no numbers"):
        edit("laf", broken, split.forget, split.retain, **QUICK)


def test_a_batch_of_one_is_warned_of(trained: Classifier, split: ForgetSplit) -> None:
    with pytest.warns(UserWarning, match="with one row it cannot"):
        edit("laf", trained, split.forget.subset([0]), split.retain, **QUICK)
