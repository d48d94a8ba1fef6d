from __future__ import annotations

import pytest
import torch
from torch import nn

from demur.data.labelled import ForgetSplit
from demur.editing import edit
from demur.editing.layers import last_layers
from demur.errors import UsageError
from demur.lab.digits import new_resnet
from demur.models import train_classifier
from demur.models.classifier import Classifier


def test_layers_are_counted_from_the_last_and_norms_go_with_what_they_follow() -> None:
    net = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, affine=False), nn.ReLU(), nn.Linear(4, 4), nn.LayerNorm(4)
    )
    assert last_layers(net, 1) == ["3", "4"]
    assert last_layers(net, 2) == ["0", "1", "3", "4"]
    with pytest.raises(ValueError, match="k must be from 1 to 2, the number of layers, not 3"):
        last_layers(net, 3)


def test_four_layers_of_the_residual_network_are_its_last_block_and_head() -> None:
    names = last_layers(new_resnet().module, 4)
    assert {name.partition(".layers")[0] for name in names} == {"resnet.encoder.stages.1", "classifier.1"}
    whole = [n for n, p in new_resnet().module.named_parameters() if n.startswith(("resnet.encoder.stages.1", "class"))]
    assert {n.rpartition(".")[0] for n in whole} == set(names)


@pytest.mark.parametrize("name", ["cf-k", "eu-k"])
def test_all_before_the_last_layers_stands_still(name: str, split: ForgetSplit) -> None:
    model = new_resnet()
    edited = edit(name, model, split.forget, split.retain, k=4, epochs=1)
    before, after = model.module.state_dict(), edited.module.state_dict()
    moved = {key.rpartition(".")[0] for key in before if not torch.equal(before[key], after[key])}
    assert moved == set(edited.facts["trained parts"])
    assert all(p.requires_grad for p in edited.module.parameters())


def test_fine_tuning_all_layers_is_fine_tuning(trained: Classifier, split: ForgetSplit) -> None:
    settings = {"seed": 1, "epochs": 2}
    tuned = edit("ft", trained, split.forget, split.retain, **settings)
    assert edit("cf-k", trained, split.forget, split.retain, k=2, **settings).weights_hash() == tuned.weights_hash()


def test_beginning_all_layers_anew_is_retraining(split: ForgetSplit) -> None:
    model = train_classifier(new_resnet(5), split.retain, epochs=1)
    again = edit("retrain", model, split.forget, split.retain, seed=3, epochs=1)
    layers = sum(p.ndim >= 2 for p in model.module.parameters())
    euk = edit("eu-k", model, split.forget, split.retain, seed=3, k=layers, epochs=1)
    assert euk.weights_hash() == again.weights_hash()


def test_layers_begin_at_fresh_weights_or_at_the_same_ones_again(split: ForgetSplit) -> None:
    start = new_resnet(5)
    model = train_classifier(start.copied(), split.retain, epochs=1)
    head = lambda **more: edit("eu-k", model, split.forget, split.retain, epochs=0, **more).head_layer.weight  # noqa: E731
    assert torch.equal(head(initial_seed=5), start.head_layer.weight)
    assert not torch.equal(head(seed=6), start.head_layer.weight)
    assert not torch.equal(head(seed=6), model.head_layer.weight)


def test_too_many_layers_are_refused(trained: Classifier, split: ForgetSplit) -> None:
    with pytest.raises(UsageError, match="k must be from 1 to 2"):
        edit("cf-k", trained, split.forget, split.retain, k=7)
