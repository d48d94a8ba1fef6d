"""Boundary unlearning: a class gives its room to its neighbours, or to a class that is thrown away (2303.11570)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from demur.editing.registry import PROBABILISTIC, editor
from demur.models.descent import cross_entropies, descend

if TYPE_CHECKING:
    from demur.data.labelled import Labelled
    from demur.models.classifier import Classifier

__all__ = ["boundary_expand", "boundary_shrink", "nearest_neighbours"]

_LEVELS = 255


def nearest_neighbours(model: Classifier, data: Labelled, step: float = 0.1, batch_size: int = 256) -> Tensor:
    """Inputs just across the border: one step along the sign of the loss's gradient (FGSM), in evaluation mode.

    Args:
        model: left as it is.
        data: rows with their labels.
        step: how far. Where all inputs lie in [0, 1] they are taken for pictures: the neighbours stay in that range
            and are rounded to 1/255.
        batch_size: rows at once.

    Returns:
        Inputs, of the same shape.
    """
    inputs, labels = data.batch()
    pictures = bool(((inputs >= 0) & (inputs <= 1)).all())
    moved = []
    with torch.enable_grad(), model.evaluating():
        for part, own in zip(inputs.split(batch_size), labels.split(batch_size), strict=True):
            near = part.clone().requires_grad_()
            (slope,) = torch.autograd.grad(F.cross_entropy(model.logits(near), own, reduction="sum"), near)
            moved.append(part + step * slope.sign())
    out = torch.cat(moved)
    return (out.clamp(0, 1) * _LEVELS).round() / _LEVELS if pictures else out


@editor("boundary-shrink", paper="2303.11570", kinds=PROBABILISTIC)
def boundary_shrink(
    model: Classifier,
    forget: Labelled,
    retain: Labelled,
    *,
    seed: int = 0,
    step: float = 0.1,
    epochs: int = 10,
    learning_rate: float = 1e-4,
    batch_size: int = 64,
    training: bool = True,
) -> Classifier:
    """Boundary shrink: each forget row learns the class that the model sees just across its border.

    Args:
        model: the trained model; it also tells the neighbours.
        forget: rows to forget.
        retain: not read.
        seed: of the order.
        step: how far across, see `nearest_neighbours`.
        epochs, learning_rate, batch_size: of the descent; published rates are 1e-6 to 1e-4.
        training: in training mode, as the published code has it: batch statistics then follow the forget rows, and
            that alone may undo the class. False leaves them.

    Returns:
        A changed copy; `facts` say for what share of the rows the step crossed the border: the others learn their own
        class again.
    """
    neighbours = nearest_neighbours(model, forget, step)
    with torch.no_grad(), model.evaluating():
        labels = torch.cat([model.logits(part).argmax(1) for part in neighbours.split(256)])
    edited = model.copied()
    moved = forget.with_labels(labels)
    descend(
        edited,
        lambda epoch: cross_entropies(edited, moved, batch_size, (seed, epoch)),
        epochs=epochs,
        learning_rate=learning_rate,
        training=training,
    )
    edited.facts |= {"crossed": float((labels != forget.labels).float().mean()), "training": training}
    return edited


@editor("boundary-expand", paper="2303.11570", labels=False, kinds=PROBABILISTIC)
def boundary_expand(
    model: Classifier,
    forget: Labelled,
    retain: Labelled,
    *,
    seed: int = 0,
    epochs: int = 10,
    learning_rate: float = 1e-4,
    batch_size: int = 64,
    training: bool = True,
) -> Classifier:
    """Boundary expand: the forget rows learn one class more, which is then thrown away.

    Args:
        model: the trained model.
        forget: rows to forget; their labels are not read.
        retain: not read.
        seed: of the order and of the new class's weights.
        epochs, learning_rate, batch_size: of the descent; published rates are 1e-6 to 1e-4. With none, the model stays
            as it is.
        training: as in boundary shrink.
    """
    edited = model.copied()
    torch.manual_seed(seed)
    old = edited.classes
    _set_head(edited, _resized(edited.head_layer, old + 1))
    gone = replace(forget, labels=torch.full((len(forget),), old), classes=(*forget.classes, "gone"))
    descend(
        edited,
        lambda epoch: cross_entropies(edited, gone, batch_size, (seed, epoch)),
        epochs=epochs,
        learning_rate=learning_rate,
        training=training,
    )
    _set_head(edited, _resized(edited.head_layer, old))
    edited.facts["training"] = training
    return edited


def _resized(head: nn.Linear, classes: int) -> nn.Linear:
    """The layer with another number of classes: the shared ones as they are, further ones as drawn."""
    new = nn.Linear(
        head.in_features, classes, bias=head.bias is not None, device=head.weight.device, dtype=head.weight.dtype
    )
    shared = min(classes, head.out_features)
    with torch.no_grad():
        new.weight[:shared] = head.weight[:shared]
        if head.bias is not None:
            new.bias[:shared] = head.bias[:shared]
    return new


def _set_head(model: Classifier, layer: nn.Linear) -> None:
    parent, _, name = model.head.rpartition(".")
    setattr(model.module.get_submodule(parent), name, layer)
