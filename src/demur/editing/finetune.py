"""Forgetting by going on training: on what is kept, against what is forgotten, or from the beginning."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from demur.editing.registry import editor
from demur.models.descent import cross_entropies, descend, train_classifier

if TYPE_CHECKING:
    from demur.data.labelled import Labelled
    from demur.models.classifier import Classifier

__all__ = ["fine_tune", "fresh", "gradient_ascent", "l1_sparse", "neg_grad_plus", "retrain"]


def fresh(model: Classifier, seed: int) -> Classifier:
    """A copy with weights as drawn anew: every layer that can be is set back to its initial state.

    Args:
        model: tells the architecture.
        seed: of the draw.
    """
    copy = model.copied()
    torch.manual_seed(seed)
    if hasattr(copy.module, "init_weights") and hasattr(copy.module, "config"):
        copy.module = type(model.module)(model.module.config)
        return copy
    for layer in copy.module.modules():
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
    return copy


@editor("retrain", paper="none")
def retrain(
    model: Classifier,
    forget: Labelled,
    retain: Labelled,
    *,
    seed: int = 0,
    epochs: int = 12,
    learning_rate: float = 0.05,
    batch_size: int = 64,
) -> Classifier:
    """Training from the beginning without the forget rows: what every other method is measured against.

    Args:
        model: tells the architecture.
        forget: not read.
        retain: what it is trained on.
        seed: of the initial weights and of the order.
        epochs, learning_rate, batch_size: as the model was trained.
    """
    return train_classifier(
        fresh(model, seed), retain, epochs=epochs, learning_rate=learning_rate, batch_size=batch_size, seed=seed
    )


@editor("ft", paper="2304.04934")
def fine_tune(
    model: Classifier,
    forget: Labelled,
    retain: Labelled,
    *,
    seed: int = 0,
    epochs: int = 10,
    learning_rate: float = 0.01,
    batch_size: int = 64,
) -> Classifier:
    """Fine-tuning on the rows to keep, in the hope that the others fade.

    Args:
        model: the trained model.
        forget: not read.
        retain: rows to keep.
        seed: of the order.
        epochs, learning_rate, batch_size: of the descent (SGD, momentum 0.9, weight decay 5e-4).
    """
    return l1_sparse(
        model, forget, retain, seed=seed, gamma=0.0, epochs=epochs, learning_rate=learning_rate, batch_size=batch_size
    )


@editor("l1-sparse", paper="2304.04934")
def l1_sparse(
    model: Classifier,
    forget: Labelled,
    retain: Labelled,
    *,
    seed: int = 0,
    gamma: float = 5e-4,
    epochs: int = 10,
    learning_rate: float = 0.01,
    batch_size: int = 64,
) -> Classifier:
    """Fine-tuning on the rows to keep with an L1 penalty that fades out: CE(retain) + γ (1 - e/E) ‖θ‖₁.

    Args:
        model: the trained model.
        forget: not read.
        retain: rows to keep.
        seed: of the order.
        gamma: γ of the first epoch.
        epochs, learning_rate, batch_size: of the descent.
    """
    edited = model.copied()

    def losses(epoch: int) -> Iterator[Tensor]:
        for loss in cross_entropies(edited, retain, batch_size, (seed, epoch)):
            penalty = gamma * (1 - epoch / epochs)
            yield loss + penalty * sum(p.abs().sum() for p in edited.module.parameters()) if penalty else loss

    return descend(edited, losses, epochs=epochs, learning_rate=learning_rate)


@editor("neggrad+", paper="2302.09880")
def neg_grad_plus(
    model: Classifier,
    forget: Labelled,
    retain: Labelled,
    *,
    seed: int = 0,
    alpha: float = 0.95,
    epochs: int = 10,
    learning_rate: float = 0.01,
    batch_size: int = 64,
    weight_decay: float = 0.0,
) -> Classifier:
    """Descent on the rows to keep and ascent on those to forget: α CE(retain) - (1 - α) CE(forget).

    Args:
        model: the trained model.
        forget: gone through again and again beside the retain rows.
        retain: gone through once an epoch.
        seed: of the order.
        alpha: in [0, 1]; 1 is fine-tuning.
        epochs, learning_rate, batch_size, weight_decay: of the descent.

    Raises:
        ValueError: alpha is out of range.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be in [0, 1], not {alpha}")
    edited = model.copied()

    def losses(epoch: int) -> Iterator[Tensor]:
        again = itertools.chain.from_iterable(
            cross_entropies(edited, forget, batch_size, (seed, epoch, turn)) for turn in itertools.count(1)
        )
        for kept in cross_entropies(edited, retain, batch_size, (seed, epoch)):
            yield kept if alpha == 1 else alpha * kept - (1 - alpha) * next(again)

    return descend(edited, losses, epochs=epochs, learning_rate=learning_rate, weight_decay=weight_decay)


@editor("ga", paper="1911.04933")
def gradient_ascent(
    model: Classifier,
    forget: Labelled,
    retain: Labelled,
    *,
    seed: int = 0,
    epochs: int = 5,
    learning_rate: float = 1e-4,
    batch_size: int = 64,
) -> Classifier:
    """Gradient ascent on the rows to forget.

    Args:
        model: the trained model.
        forget: rows to forget.
        retain: not read.
        seed: of the order.
        epochs, learning_rate, batch_size: of the ascent.
    """
    edited = model.copied()
    return descend(
        edited,
        lambda epoch: (-loss for loss in cross_entropies(edited, forget, batch_size, (seed, epoch))),
        epochs=epochs,
        learning_rate=learning_rate,
    )
