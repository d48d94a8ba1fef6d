from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import ResNetConfig, ResNetForImageClassification, ViTConfig, ViTForImageClassification

from demur.data.labelled import Labelled
from demur.errors import UsageError
from demur.models.classifier import Classifier, load_classifier

DATA = Labelled(torch.linspace(0, 1, 5 * 64).view(5, 1, 8, 8), torch.arange(5) % 3, ("a", "b", "c"))


def resnet() -> Classifier:
    torch.manual_seed(0)
    config = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic", num_channels=1, num_labels=3
    )
    return Classifier(ResNetForImageClassification(config), "classifier.1")


def vit() -> Classifier:
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=8, patch_size=4
    )
    config.num_channels, config.num_labels = 1, 3
    return Classifier(ViTForImageClassification(config), "classifier")


def own() -> Classifier:
    torch.manual_seed(0)
    return Classifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.ReLU(), nn.Linear(6, 3)), head="3")


@pytest.mark.parametrize("make", [resnet, vit, own])
def test_features_are_what_the_head_makes_logits_of(make: object) -> None:
    model: Classifier = make()  # type: ignore[operator]
    assert model.classes == 3
    with model.evaluating(), torch.no_grad():
        torch.testing.assert_close(model.head_layer(model.features(DATA)), model.predict(DATA, batch_size=2))
        weights = {name: p.detach() for name, p in model.module.named_parameters()}
        torch.testing.assert_close(model.logits_with(weights, DATA.inputs), model.predict(DATA))


@pytest.mark.parametrize("make", [resnet, vit])
def test_a_model_of_transformers_comes_back_from_its_folder(make: object, tmp_path: Path) -> None:
    model: Classifier = make()  # type: ignore[operator]
    model.save(tmp_path)
    again = load_classifier(tmp_path)
    assert again.weights_hash() == model.weights_hash() and again.head == model.head


def test_a_module_of_ones_own_comes_from_a_function_and_takes_saved_weights(tmp_path: Path) -> None:
    changed = own()
    with torch.no_grad():
        changed.head_layer.weight.zero_()
    changed.save(tmp_path)
    name = f"{__name__}:own"
    assert load_classifier(name).weights_hash() == own().weights_hash()
    assert load_classifier(name, weights=tmp_path).weights_hash() == changed.weights_hash()


def test_a_copy_shares_no_weight() -> None:
    model = own()
    copy = model.copied()
    with torch.no_grad():
        copy.head_layer.weight.add_(1)
    assert copy.weights_hash() != model.weights_hash() == own().weights_hash()


def test_evaluation_ends_where_it_began() -> None:
    model = resnet()
    model.module.train()
    model.predict(DATA)
    assert model.module.training


def test_what_is_no_classifier_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no linear layer 'top': it has 1, 3"):
        Classifier(own().module, head="top")
    for name, said in (
        ("torch.nn:Flatten", "not a Classifier"),
        ("no.module:make", "cannot be made"),
        (tmp_path, "no config"),
    ):
        with pytest.raises(UsageError, match=said):
            load_classifier(name)
