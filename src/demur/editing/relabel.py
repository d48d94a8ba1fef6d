"""Forgetting by wrong labels: random ones, ones that are never right, or random ones for salient weights only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from demur.editing.finetune import tuned
from demur.editing.registry import PROBABILISTIC, editor
from demur.models.descent import cross_entropies

if TYPE_CHECKING:
    from demur.data.labelled import Labelled
    from demur.models.classifier import Classifier

__all__ = ["amnesiac", "random_label", "saliency_mask", "salun"]

Order = Literal["forget-first", "mixed"]


@editor("rl", paper="1911.04933", kinds=PROBABILISTIC)
def random_label(
    model: Classifier,
    forget: Labelled,
    retain: Labelled,
    *,
    seed: int = 0,
    order: Order = "forget-first",
    epochs: int = 10,
    learning_rate: float = 0.013,
    batch_size: int = 64,
) -> Classifier:
    """Fine-tuning with random labels on the rows to forget and the right ones on those to keep.

    Labels are uniform over all C classes, so that one in C is right, and drawn anew each epoch.

    Args:
        model, forget, retain, seed: see `edit`.
        order: "forget-first": in each epoch all forget rows, then all retain rows; "mixed": both shuffled together.
        epochs, learning_rate, batch_size: of the descent.

    Raises:
        ValueError: the order is unknown.
    """
    student = model.copied()
    losses = _random_labels(student, forget, retain, seed, order, batch_size)
    return tuned(student, losses, epochs=epochs, learning_rate=learning_rate)


def _random_labels(
    student: Classifier, forget: Labelled, retain: Labelled, seed: int, order: str, batch_size: int
) -> Callable[[int], Iterator[Tensor]]:
    if order not in get_args(Order):
        raise ValueError(f"order must be one of {', '.join(get_args(Order))}, not {order!r}")

    def losses(epoch: int) -> Iterator[Tensor]:
        drawn = np.random.default_rng([seed, epoch, 17]).integers(len(forget.classes), size=len(forget))
        wrong = forget.with_labels(torch.as_tensor(drawn))
        if order == "mixed":
            yield from cross_entropies(student, retain.joined(wrong), batch_size, (seed, epoch))
        else:
            yield from cross_entropies(student, wrong, batch_size, (seed, epoch, 1))
            yield from cross_entropies(student, retain, batch_size, (seed, epoch))

    return losses


@editor("amnesiac", paper="2010.10981", kinds=PROBABILISTIC)
def amnesiac(
    model: Classifier,
    forget: Labelled,
    retain: Labelled,
    *,
    seed: int = 0,
    epochs: int = 3,
    learning_rate: float = 1e-4,
    batch_size: int = 128,
) -> Classifier:
    """Fine-tuning (Adam) on the rows to keep and on those to forget, each under one wrong label that is drawn once.

    The name is that of Graves et al. (2021), whose own method subtracts recorded updates; this is its label-swapping
    stand-in, which comparisons use.

    Args:
        model, forget, retain, seed: see `edit`.
        epochs, learning_rate, batch_size: of the descent, without weight decay.

    Raises:
        ValueError: there is one class only.
    """
    classes = len(forget.classes)
    if classes < 2:
        raise ValueError("a wrong label needs a second class")
    shift = torch.as_tensor(np.random.default_rng([seed, 19]).integers(1, classes, size=len(forget)))
    taught = retain.joined(forget.with_labels((forget.labels + shift) % classes))
    student = model.copied()
    return tuned(
        student,
        lambda epoch: cross_entropies(student, taught, batch_size, (seed, epoch)),
        epochs=epochs,
        learning_rate=learning_rate,
        optimizer="adam",
        weight_decay=0.0,
    )


def saliency_mask(model: Classifier, forget: Labelled, q: float, batch_size: int = 64) -> dict[str, Tensor]:
    """The weights with the largest gradients on the rows to forget (Fan et al. 2023, arXiv 2310.12508, eq. 3).

    |Σ over batches of ∇CE|, in evaluation mode; one ranking over all parameters.

    Args:
        model: left as it is.
        forget: rows to forget, read in their own order.
        q: share of the weights that are chosen, in (0, 1].
        batch_size: rows in a batch; each batch counts with its mean loss.

    Returns:
        Parameter → which of its weights are chosen.

    Raises:
        ValueError: q is out of range.
    """
    if not 0 < q <= 1:
        raise ValueError(f"q must be in (0, 1], not {q}")
    weights = dict(model.module.named_parameters())
    total = [torch.zeros_like(w) for w in weights.values()]
    with model.evaluating():
        for start in range(0, len(forget), batch_size):
            inputs, labels = forget.batch(slice(start, start + batch_size))
            grads = torch.autograd.grad(
                F.cross_entropy(model.logits(inputs), labels), list(weights.values()), allow_unused=True
            )
            total = [t if g is None else t + g for t, g in zip(total, grads, strict=True)]
    sizes = torch.cat([t.abs().flatten() for t in total])
    chosen = torch.zeros(len(sizes), dtype=torch.bool)
    chosen[sizes.argsort(descending=True, stable=True)[: round(q * len(sizes))]] = True
    parts = chosen.split([w.numel() for w in weights.values()])
    return {name: part.view_as(w) for (name, w), part in zip(weights.items(), parts, strict=True)}


@editor("salun", paper="2310.12508", kinds=PROBABILISTIC)
def salun(
    model: Classifier,
    forget: Labelled,
    retain: Labelled,
    *,
    seed: int = 0,
    q: float = 0.5,
    order: Order = "forget-first",
    epochs: int = 10,
    learning_rate: float = 0.013,
    batch_size: int = 64,
) -> Classifier:
    """Random labels that only the weights most salient for the rows to forget may learn.

    Gradients of all other weights are masked and their values put back after each step, because weight decay and
    momentum move them too.

    Args:
        model, forget, retain, seed: see `edit`.
        q: share of the weights that may change; 1 is `rl`.
        order: as of `rl`.
        epochs, learning_rate, batch_size: of the descent; `batch_size` of the saliency too.

    Returns:
        A changed copy; `facts` say what share of each tensor was chosen.

    Raises:
        ValueError: q is out of range, or the order is unknown.
    """
    mask = saliency_mask(model, forget, q, batch_size)
    student = model.copied()
    losses = _random_labels(student, forget, retain, seed, order, batch_size)
    held = [(p, mask[name], p.detach().clone()) for name, p in student.module.named_parameters()]
    hooks = [p.register_hook(lambda grad, may=may: grad * may) for p, may, _ in held]

    def put_back() -> None:
        for p, may, before in held:
            p.data.copy_(torch.where(may, p.data, before))

    tuned(student, losses, after_step=put_back, epochs=epochs, learning_rate=learning_rate)
    for hook in hooks:
        hook.remove()
    student.facts["salient"] = {name: float(may.float().mean()) for name, may in mask.items()}
    return student
