"""Noise that stands for a class: learned to be as wrong as it can, it makes the model forget the class (2111.08947)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from demur.editing.registry import PROBABILISTIC, editor
from demur.errors import UsageError
from demur.models.descent import batches, cross_entropies, descend

if TYPE_CHECKING:
    from demur.data.labelled import Labelled
    from demur.models.classifier import Classifier

__all__ = ["class_noise", "unsir"]

_REPAIR_BATCH = 128


def class_noise(
    model: Classifier,
    label: int,
    like: Tensor,
    *,
    rows: int = 32,
    steps: int = 25,
    learning_rate: float = 0.1,
    penalty: float = 0.1,
) -> Tensor:
    """Inputs on which the model's loss for a class is as high as it gets: they maximise CE - w · mean ‖noise‖².

    Args:
        model: left as it is; in evaluation mode.
        label: the class.
        like: an input, for its shape.
        rows: how many inputs.
        steps, learning_rate: of Adam.
        penalty: w.

    Returns:
        (rows, …) noise.
    """
    noise = torch.randn(rows, *like.shape).requires_grad_()
    optimizer = torch.optim.Adam([noise], lr=learning_rate)
    labels = torch.full((rows,), label)
    with model.evaluating():
        for _ in range(steps):
            loss = penalty * noise.square().flatten(1).sum(1).mean() - F.cross_entropy(model.logits(noise), labels)
            (noise.grad,) = torch.autograd.grad(loss, noise)
            optimizer.step()
    return noise.detach()


@editor("unsir", paper="2111.08947", kinds=PROBABILISTIC)
def unsir(
    model: Classifier,
    forget: Labelled,
    retain: Labelled,
    *,
    seed: int = 0,
    noise_steps: int = 25,
    noise_rate: float = 0.1,
    noise_batches: int = 80,
    samples: int = 500,
    epochs: int = 1,
    repair_epochs: int = 1,
    learning_rate: float = 1e-4,
    batch_size: int = 32,
    training: bool = True,
) -> Classifier:
    """UNSIR: the noise of a class is learned, impairs the model beside rows to keep, and these repair it.

    For whole classes only.

    Args:
        model: the trained model.
        forget: all rows of one class or several.
        retain: rows of the other classes.
        seed: of the noise, the samples and the order.
        noise_steps, noise_rate: how the noise is learned (Adam).
        noise_batches: how often a class's noise of `batch_size` rows is seen in an epoch.
        samples: rows of each other class.
        epochs: of impairing.
        repair_epochs: of repairing, in batches of 128.
        learning_rate: of both (Adam).
        batch_size: rows of noise, and of an impairing batch.
        training: in training mode, as the published code has it: batch statistics then follow the noise, and what
            looks forgotten may come back with theirs. False leaves them.

    Returns:
        A changed copy; `facts` say the loss on the noise before it impaired.

    Raises:
        UsageError: a class is to be forgotten and kept.
    """
    gone = forget.labels.unique()
    both = torch.isin(gone, retain.labels)
    if both.any():
        name = forget.classes[int(gone[both][0])]
        raise UsageError(f"unsir forgets whole classes, and {name!r} has rows to keep: forget class:{name}")
    edited = model.copied()
    torch.manual_seed(seed)
    kept = retain.subset(_drawn(retain.labels, samples, seed))
    like = forget.batch(slice(0, 1))[0][0]
    noises = [
        class_noise(edited, int(c), like, rows=batch_size, steps=noise_steps, learning_rate=noise_rate) for c in gone
    ]
    noise, labels = torch.cat(noises), gone.repeat_interleave(batch_size)
    with torch.no_grad(), edited.evaluating():
        edited.facts["noise_loss"] = float(F.cross_entropy(edited.logits(noise), labels))

    def impair(epoch: int) -> Iterator[Tensor]:
        total = len(noise) * noise_batches
        for rows in batches(total + len(kept), batch_size, (seed, 1, epoch)):
            noisy, clean = rows[rows < total] % len(noise), rows[rows >= total] - total
            inputs, own = kept.batch(clean)
            inputs, own = torch.cat([noise[noisy], inputs]), torch.cat([labels[noisy], own])
            yield F.cross_entropy(edited.logits(inputs), own)

    def repair(epoch: int) -> Iterator[Tensor]:
        yield from cross_entropies(edited, kept, _REPAIR_BATCH, (seed, 2, epoch))

    for losses, times in ((impair, epochs), (repair, repair_epochs)):
        descend(
            edited,
            losses,
            epochs=times,
            learning_rate=learning_rate,
            optimizer="adam",
            weight_decay=0.0,
            training=training,
        )
    edited.facts["training"] = training
    return edited


def _drawn(labels: Tensor, samples: int, seed: int) -> Tensor:
    """Up to so many rows of each class."""
    order = torch.as_tensor(np.random.default_rng([seed, 31]).permutation(len(labels)))
    return torch.cat([order[labels[order] == c][:samples] for c in labels.unique()])
