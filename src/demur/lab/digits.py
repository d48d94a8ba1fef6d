"""Small residual networks for pictures, trained in seconds and kept in the cache."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from demur.errors import UsageError
from demur.files import atomic_directory, hash_json, writable_cache

if TYPE_CHECKING:
    from demur.data.labelled import Labelled
    from demur.models.classifier import Classifier

__all__ = ["DigitsRecipe", "new_resnet", "trained_resnet"]

_VERSION = 1  # raised when a change below makes the same training end in other weights


@dataclass(frozen=True)
class DigitsRecipe:
    """Everything that decides the weights of `lab:digits-resnet`, which is trained on `digits:train`.

    Attributes:
        seed: decides the initial weights and the order of the rows.
        epochs: passes over the rows.
    """

    splits: ClassVar[tuple[str, ...]] = ("digits:train",)
    row_splits: ClassVar[tuple[str, ...]] = ()
    layers: ClassVar[int] = 2
    width: ClassVar[int] = 32

    seed: int = 0
    epochs: int = 12

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.seed < 0:
            raise UsageError(
                f"a lab model needs epochs of at least 1 and a seed of at least 0, not {self.epochs}, {self.seed}"
            )

    @property
    def hash(self) -> str:
        """SHA-256 (hex) of the recipe."""
        return hash_json({"kind": "digits-resnet", "version": _VERSION, "recipe": asdict(self)})

    def rows(self, split: str) -> list[dict[str, Any]]:
        """Of a language model's rows there are none: `digits:train` and `digits:test` are labelled sets."""
        return []

    def train(self, name: str, progress: bool = True) -> Classifier:
        """The trained network, as `trained_resnet` makes it."""
        from demur.data.labelled_sources import read_labelled

        return trained_resnet(read_labelled("digits:train"), self.seed, self.epochs)


def new_resnet(seed: int = 0, classes: int = 10, channels: int = 1) -> Classifier:
    """A residual network of 20,000 weights for pictures from 8 × 8 pixels, untrained.

    Args:
        seed: of the initial weights.
        classes: how many there are.
        channels: of a picture.
    """
    import torch
    from transformers import ResNetConfig, ResNetForImageClassification

    from demur.models.classifier import Classifier

    torch.manual_seed(seed)
    config = ResNetConfig(
        num_channels=channels,
        embedding_size=16,
        hidden_sizes=[16, 32],
        depths=[1, 1],
        layer_type="basic",
        num_labels=classes,  # type: ignore[call-arg]
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
    from demur.models.classifier import load_classifier
    from demur.models.descent import train_classifier

    recipe = {"kind": "resnet", "version": _VERSION, "data": data.hash(), "seed": seed, "epochs": epochs}
    folder = writable_cache() / "classifiers" / hash_json(recipe)[:16]
    if not (folder / "model.safetensors").is_file():
        made = train_classifier(
            new_resnet(seed, len(data.classes), data.inputs.shape[1]), data, epochs=epochs, seed=seed
        )
        with atomic_directory(folder) as temporary:
            made.save(temporary)
    return load_classifier(folder)
