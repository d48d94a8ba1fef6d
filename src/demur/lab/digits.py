"""Small residual networks for pictures, trained in seconds and kept in the cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from demur.files import atomic_directory, hash_json, writable_cache
from demur.models.classifier import Classifier, load_classifier
from demur.models.descent import train_classifier

if TYPE_CHECKING:
    from demur.data.labelled import Labelled

__all__ = ["new_resnet", "trained_resnet"]


def new_resnet(seed: int = 0, classes: int = 10, channels: int = 1) -> Classifier:
    """A residual network of 20,000 weights for pictures from 8 × 8 pixels, untrained.

    Args:
        seed: of the initial weights.
        classes: how many there are.
        channels: of a picture.
    """
    from transformers import ResNetConfig, ResNetForImageClassification

    torch.manual_seed(seed)
    config = ResNetConfig(
        num_channels=channels,
        embedding_size=16,
        hidden_sizes=[16, 32],
        depths=[1, 1],
        layer_type="basic",
        num_labels=classes,
    )
    return Classifier(ResNetForImageClassification(config).eval(), head="classifier.1", name=f"resnet@seed={seed}")


def trained_resnet(data: Labelled, seed: int = 0, epochs: int = 12) -> Classifier:
    """A small residual network trained on a set, or the one that was trained so before.

    Args:
        data: the training set.
        seed: of the initial weights and of the order of the rows.
        epochs: how many.

    Raises:
        DemurError: the cache cannot be written.
    """
    recipe = {"kind": "resnet", "version": 1, "data": data.hash(), "seed": seed, "epochs": epochs}
    folder = writable_cache() / "classifiers" / hash_json(recipe)[:16]
    if not (folder / "model.safetensors").is_file():
        made = train_classifier(
            new_resnet(seed, len(data.classes), data.inputs.shape[1]), data, epochs=epochs, seed=seed
        )
        with atomic_directory(folder) as temporary:
            made.save(temporary)
    return load_classifier(folder)
