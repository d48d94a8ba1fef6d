"""How soon a classifier knows again what it was made to forget, once it is trained on it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor

from demur.errors import UsageError
from demur.models.descent import cross_entropies, descend

if TYPE_CHECKING:
    from demur.data.labelled import Labelled
    from demur.models.classifier import Classifier

__all__ = ["Relearning", "anamnesis_index", "relearn", "relearn_time"]


@dataclass(frozen=True)
class Relearning:
    """A model's way back.

    Attributes:
        accuracy, loss: on the forget rows before each step; the first are those of the model as it came.
    """

    accuracy: tuple[float, ...]
    loss: tuple[float, ...]

    def time(self, *, accuracy: float | None = None, loss: float | None = None) -> int | None:
        """Steps until the accuracy is as high, or the loss as low; None where it never is.

        Raises:
            UsageError: not exactly one of the two is given.
        """
        if (accuracy is None) == (loss is None):
            raise UsageError("relearning ends at an accuracy or at a loss: give one of the two")
        there = [a >= accuracy for a in self.accuracy] if accuracy is not None else []
        there += [x <= loss for x in self.loss] if loss is not None else []
        return there.index(True) if True in there else None


def relearn(
    model: Classifier,
    data: Labelled,
    forget: Labelled,
    *,
    steps: int = 120,
    learning_rate: float = 0.01,
    batch_size: int = 64,
    seed: int = 0,
) -> Relearning:
    """Fine-tune a copy with one fixed recipe and watch the forget rows come back.

    SGD with momentum 0.9, without weight decay, in training mode. Numbers under different recipes do not compare.

    Args:
        model: left as it is.
        data: what it is trained on: all training rows, or the forget rows alone.
        forget: the rows to watch.
        steps: of training.
        learning_rate, batch_size: of the descent.
        seed: of the order.

    Raises:
        UsageError: a set is empty.
    """
    for rows in (data, forget):
        if not len(rows):
            raise UsageError(f"{rows.name} is empty: nothing to relearn")
    copy = model.copied()
    accuracy, loss = [], []

    def watch() -> None:
        logits = copy.predict(forget)
        accuracy.append(float((logits.argmax(1) == forget.labels).double().mean()))
        loss.append(float(F.cross_entropy(logits, forget.labels)))

    def losses(epoch: int) -> Iterator[Tensor]:
        for value in cross_entropies(copy, data, batch_size, (seed, epoch)):
            if len(accuracy) > steps:
                return
            yield value

    watch()
    epochs = -(-steps // -(-len(data) // batch_size))
    descend(copy, losses, epochs=epochs, learning_rate=learning_rate, weight_decay=0.0, after_step=watch)
    return Relearning(tuple(accuracy), tuple(loss))


def relearn_time(
    model: Classifier,
    data: Labelled,
    forget: Labelled | None = None,
    *,
    accuracy: float | None = None,
    loss: float | None = None,
    steps: int = 120,
    learning_rate: float = 0.01,
    batch_size: int = 64,
    seed: int = 0,
) -> int | None:
    """Steps of `relearn` until the forget rows are known again (Golatkar et al. 2020; Kurmanji et al. 2023).

    Args:
        model: left as it is.
        data: what it is trained on.
        forget: the rows to watch; `data` by default.
        accuracy: that counts as known, for instance 0.9 of the model's before it forgot.
        loss: that counts as known; one of the two is needed.
        steps, learning_rate, batch_size, seed: as for `relearn`.

    Returns:
        The steps, 0 where the model knows them as it is; None where they did not suffice.

    Raises:
        UsageError: a set is empty, or not exactly one of accuracy and loss is given.
    """
    if (accuracy is None) == (loss is None):
        raise UsageError("relearning ends at an accuracy or at a loss: give one of the two")
    found = relearn(
        model,
        data,
        data if forget is None else forget,
        steps=steps,
        learning_rate=learning_rate,
        batch_size=batch_size,
        seed=seed,
    )
    return found.time(accuracy=accuracy, loss=loss)


def anamnesis_index(
    unlearned: Relearning, retrained: Relearning, original_accuracy: float, alpha: float = 0.1
) -> float | None:
    """AIN = r(unlearned) / r(retrained), r the steps to come within α of the accuracy before (arXiv 2201.05629).

    1 is ideal; well below, the model still holds what it does not say.

    Args:
        unlearned, retrained: found with one recipe.
        original_accuracy: of the model that was trained on everything, on the forget rows.
        alpha: share of that accuracy that may be missing.

    Returns:
        The ratio; infinite where the unlearned model never comes back; None where the retrained model needs no step or
        never learns, so that there is nothing to divide by.
    """
    mine, wanted = (way.time(accuracy=(1 - alpha) * original_accuracy) for way in (unlearned, retrained))
    if not wanted:
        return None
    return float("inf") if mine is None else mine / wanted
