"""The training loop of classifiers: seeded batches of one set or of several in step."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from demur.models.threads import few_threads

if TYPE_CHECKING:
    from demur.data.labelled import Labelled
    from demur.models.classifier import Classifier

__all__ = ["batches", "cross_entropies", "descend", "tell", "train_classifier", "watched"]

Optimizer = Literal["sgd", "adam"]
_WATCHER: ContextVar[Callable[[float, float, str], Any] | None] = ContextVar("watcher", default=None)


@contextlib.contextmanager
def watched(report: Callable[[float, float, str], Any]) -> Iterator[None]:
    """Hear of every epoch, model or row that long work within the block is done with, whoever started it.

    Args:
        report: called with how many are done, how many there are, and of what.
    """
    token = _WATCHER.set(report)
    try:
        yield
    finally:
        _WATCHER.reset(token)


def tell(done: float, total: float, note: str = "") -> None:
    """Say to who watches, if anyone does, how far a piece of work is."""
    report = _WATCHER.get()
    if report is not None:
        report(done, total, note)


def batches(rows: int, size: int, seed: Sequence[int]) -> Iterator[Tensor]:
    """Row numbers in a seeded order, some at a time."""
    order = torch.as_tensor(np.random.default_rng(list(seed)).permutation(rows))
    yield from order.split(size)


def descend(
    model: Classifier,
    losses: Callable[[int], Iterator[Tensor]],
    *,
    epochs: int,
    learning_rate: float,
    optimizer: Optimizer = "sgd",
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    schedule: Literal["constant", "one-cycle", "cosine"] = "constant",
    steps: int | None = None,
    parameters: Sequence[torch.nn.Parameter] | None = None,
    training: bool = True,
    after_step: Callable[[], Any] | None = None,
) -> Classifier:
    """Follow losses downhill.

    Args:
        model: changed in place, and left in evaluation mode.
        losses: gives an epoch's losses, one a step, each computed when it is asked for.
        epochs: how many.
        learning_rate: the highest.
        optimizer, momentum, weight_decay: of the descent.
        schedule: of the learning rate; all but "constant" need `steps`.
        steps: in an epoch.
        parameters: those that change; all by default.
        training: in training mode, so that batch statistics move; else in evaluation mode.
        after_step: called after each step.

    Returns:
        The model.
    """
    chosen = list(model.module.parameters() if parameters is None else parameters)
    made: torch.optim.Optimizer
    if optimizer == "sgd":
        made = torch.optim.SGD(chosen, lr=learning_rate, momentum=momentum, weight_decay=weight_decay)
    else:
        made = torch.optim.Adam(chosen, lr=learning_rate, weight_decay=weight_decay)
    model.module.train(training)
    done = 0
    with few_threads(model.module):
        for epoch in range(epochs):
            for loss in losses(epoch):
                if schedule != "constant" and steps is not None:
                    rate = learning_rate * _course(schedule, done / (steps * epochs))
                    for group in made.param_groups:
                        group["lr"] = rate
                made.zero_grad(set_to_none=True)
                loss.backward()
                made.step()
                done += 1
                if after_step is not None:
                    after_step()
            tell(epoch + 1, epochs, "epochs")
    model.module.zero_grad(set_to_none=True)
    model.module.eval()
    return model


def _course(schedule: str, share: float) -> float:
    """The learning rate as a share of the highest: up over a fifth of the steps and down, or down a cosine."""
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * share))
    return min(share / 0.2 + 0.04, (1 - share) / 0.8 + 1e-3, 1.0)


def cross_entropies(model: Classifier, data: Labelled, batch_size: int, seed: Sequence[int]) -> Iterator[Tensor]:
    """The mean cross entropy of each batch of a set, in a seeded order."""
    for rows in batches(len(data), batch_size, seed):
        inputs, labels = data.batch(rows)
        yield F.cross_entropy(model.logits(inputs), labels)


def train_classifier(
    model: Classifier,
    data: Labelled,
    *,
    epochs: int = 12,
    learning_rate: float = 0.05,
    batch_size: int = 64,
    weight_decay: float = 5e-4,
    seed: int = 0,
) -> Classifier:
    """Train a classifier from what it is now: SGD with momentum, its rate rising for a fifth of the steps.

    Args:
        model: changed in place.
        data: the training set.
        epochs, learning_rate, batch_size, weight_decay: of the descent.
        seed: decides the order of the rows.

    Returns:
        The model, in evaluation mode.
    """
    return descend(
        model,
        lambda epoch: cross_entropies(model, data, batch_size, (seed, epoch)),
        epochs=epochs,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        schedule="one-cycle",
        steps=-(-len(data) // batch_size),
    )
