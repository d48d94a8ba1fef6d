"""Forgetting by going on training: on what is kept, against what is forgotten, or from the beginning.

Settings of the descent that all methods share: `epochs`, `learning_rate`, `batch_size` and, where a method has them,
`optimizer` (SGD with momentum 0.9, or Adam) and `weight_decay` (5e-4 unless said otherwise).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from demur.editing.linear import refit
from demur.editing.registry import PROBABILISTIC, editor
from demur.models.descent import cross_entropies, descend, train_classifier
from demur.models.linear_classifier import LinearClassifier

if TYPE_CHECKING:
    from demur.data.labelled import Labelled
    from demur.models.classifier import Classifier

__all__ = ["fine_tune", "fresh", "gradient_ascent", "l1_sparse", "neg_grad_plus", "retrain", "tuned"]


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
        reset: Any = getattr(layer, "reset_parameters", None)
        if reset is not None:
            reset()
    return copy


def tuned(student: Classifier, losses: Callable[[int], Iterator[Tensor]], **settings: Any) -> Classifier:
    """Follow losses downhill, and note what became of the running statistics of batch normalisation.

    Args:
        student: changed in place.
        losses: of an epoch, a loss a step.
        settings: as `models.descent.descend` has them.

    Returns:
        The student, its `facts` with the note.
    """
    descend(student, losses, **settings)
    normalised = any(isinstance(layer, _BatchNorm) for layer in student.module.modules())
    student.facts["batch statistics"] = "moved with the batches" if normalised else "none"
    return student


@editor("retrain", paper="none", kinds=(*PROBABILISTIC, "ridge", "ridge-classifier", "least-squares"))
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

    A linear model of scikit-learn is fitted anew there, with its own penalty.

    Args:
        model: tells the architecture.
        forget: not read.
        retain: what it is trained on.
        seed: of the initial weights and of the order.
        epochs, learning_rate, batch_size: as the model was trained; not of linear models.
    """
    if isinstance(model, LinearClassifier):
        return refit(model, retain)
    return train_classifier(
        fresh(model, seed), retain, epochs=epochs, learning_rate=learning_rate, batch_size=batch_size, seed=seed
    )


@editor("ft", paper="2304.04934", kinds=PROBABILISTIC)
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
    """Fine-tuning on the rows to keep, in the hope that the others, which are not read, fade.

    Args:
        model, forget, retain, seed: see `edit`.
        epochs, learning_rate, batch_size: of the descent.
    """
    settings = {"seed": seed, "epochs": epochs, "learning_rate": learning_rate, "batch_size": batch_size}
    return l1_sparse(model, forget, retain, gamma=0.0, **settings)


@editor("l1-sparse", paper="2304.04934", kinds=PROBABILISTIC)
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
        model, forget, retain, seed: see `edit`; the forget rows are not read.
        gamma: γ of the first epoch; 0 is fine-tuning.
        epochs, learning_rate, batch_size: of the descent.
    """
    student = model.copied()

    def losses(epoch: int) -> Iterator[Tensor]:
        penalty = gamma * (1 - epoch / epochs)
        for loss in cross_entropies(student, retain, batch_size, (seed, epoch)):
            yield loss + penalty * sum(p.abs().sum() for p in student.module.parameters()) if penalty else loss

    return tuned(student, losses, epochs=epochs, learning_rate=learning_rate)


@editor("neggrad+", paper="2302.09880", kinds=PROBABILISTIC)
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

    An epoch goes through the retain rows once; the forget rows beside them come again and again.

    Args:
        model, forget, retain, seed: see `edit`.
        alpha: in [0, 1]; 1 is fine-tuning, 0 gradient ascent.
        epochs, learning_rate, batch_size, weight_decay: of the descent.

    Raises:
        ValueError: alpha is out of range.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be in [0, 1], not {alpha}")
    student = model.copied()
    again = itertools.chain.from_iterable(
        cross_entropies(student, forget, batch_size, (seed, turn)) for turn in itertools.count()
    )

    def losses(epoch: int) -> Iterator[Tensor]:
        for kept in cross_entropies(student, retain, batch_size, (seed, epoch)):
            yield kept if alpha == 1 else alpha * kept - (1 - alpha) * next(again)

    return tuned(student, losses, epochs=epochs, learning_rate=learning_rate, weight_decay=weight_decay)


@editor("ga", paper="1911.04933", kinds=PROBABILISTIC)
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
    """Gradient ascent on the rows to forget; the others are not read.

    Args:
        model, forget, retain, seed: see `edit`.
        epochs, learning_rate, batch_size: of the ascent.
    """
    student = model.copied()

    def losses(epoch: int) -> Iterator[Tensor]:
        return (-loss for loss in cross_entropies(student, forget, batch_size, (seed, epoch)))

    return tuned(student, losses, epochs=epochs, learning_rate=learning_rate)
