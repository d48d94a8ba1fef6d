"""Two edits that need no retain rows: fine-tuning on second-best labels, and hiding the forgotten outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from demur.editing.finetune import tuned
from demur.editing.registry import editor
from demur.errors import UsageError
from demur.models.descent import cross_entropies

if TYPE_CHECKING:
    from torch import Tensor

    from demur.data.labelled import Labelled
    from demur.models.classifier import Classifier

__all__ = ["head_mask", "pseudo_label"]

_NEVER = -1e4


def _forgotten(forget: Labelled, retain: Labelled) -> Tensor:
    """The classes whose rows are all to be forgotten."""
    classes = forget.labels.unique()
    classes = classes[~torch.isin(classes, retain.labels)]
    if not len(classes):
        raise UsageError("every class of the forget rows has rows to keep too: this method forgets whole classes")
    return classes


@editor("pseudo-label", paper="2503.06991")
def pseudo_label(
    model: Classifier,
    forget: Labelled,
    retain: Labelled,
    *,
    seed: int = 0,
    epochs: int = 5,
    learning_rate: float = 0.01,
    batch_size: int = 64,
) -> Classifier:
    """Fine-tuning on the rows to forget, each under the likeliest of the classes that stay.

    Args:
        model, forget, retain, seed: see `edit`; kept rows are read only for which classes stay.
        epochs, learning_rate, batch_size: of the descent (SGD, momentum 0.9, weight decay 5e-4).

    Raises:
        UsageError: no class is forgotten as a whole.
    """
    logits = model.predict(forget)
    logits[:, _forgotten(forget, retain)] = -torch.inf
    renamed, edited = forget.with_labels(logits.argmax(1)), model.copied()
    return tuned(
        edited,
        lambda epoch: cross_entropies(edited, renamed, batch_size, (seed, epoch)),
        epochs=epochs,
        learning_rate=learning_rate,
    )


@editor("head-mask", paper="2503.06991")
def head_mask(model: Classifier, forget: Labelled, retain: Labelled, *, seed: int = 0) -> Classifier:
    """A negative control that forgets nothing: forgotten classes get a bias of -10,000 and are never answered.

    Args:
        model, forget, retain, seed: see `edit`; kept rows are read only for which classes stay, and nothing is drawn.

    Raises:
        UsageError: no class is forgotten as a whole, or the last layer has no bias.
    """
    edited = model.copied()
    bias = edited.head_layer.bias
    if bias is None:
        raise UsageError(f"{model.name} has no bias in its last layer to hide a class with")
    with torch.no_grad():
        bias[_forgotten(forget, retain)] = _NEVER
    return edited
