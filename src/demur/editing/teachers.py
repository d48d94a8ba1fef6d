"""Forgetting with teachers: close to the old model on what is kept, to an ignorant one or far from it on the rest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from demur.editing.finetune import fresh, tuned
from demur.editing.registry import PROBABILISTIC, editor
from demur.errors import UsageError
from demur.models.descent import Optimizer, batches

if TYPE_CHECKING:
    from demur.data.labelled import Labelled
    from demur.models.classifier import Classifier

__all__ = ["Reduction", "bad_teacher", "bad_teacher_loss", "divergence", "scrub"]

Reduction = Literal["batchmean", "mean"]


def divergence(logits: Tensor, teacher: Tensor, temperature: float = 1.0, reduction: Reduction = "batchmean") -> Tensor:
    """T² KL(softmax(teacher / T) ‖ softmax(logits / T)), in nats.

    Args:
        logits: (rows, classes) of the student.
        teacher: (rows, classes).
        temperature: T > 0.
        reduction: "batchmean" is the mean over rows; "mean" divides by the number of classes too.

    Returns:
        Scalar.

    Raises:
        ValueError: the temperature is not positive, or the reduction is unknown.
    """
    if not temperature > 0 or reduction not in get_args(Reduction):
        raise ValueError(f"temperature {temperature} must be above 0, reduction {reduction!r} batchmean or mean")
    student, target = (F.log_softmax(z / temperature, dim=1) for z in (logits, teacher))
    # Not kl_div's own "mean", which PyTorch means to change.
    total = temperature**2 * F.kl_div(student, target, reduction="batchmean", log_target=True)
    return total / logits.shape[1] if reduction == "mean" else total


def bad_teacher_loss(
    logits: Tensor,
    competent: Tensor,
    incompetent: Tensor,
    to_forget: Tensor,
    temperature: float = 1.0,
    reduction: Reduction = "batchmean",
) -> Tensor:
    """KL from an ignorant teacher on rows to forget and from the old model on the others (arXiv 2205.08096, eq. 2).

    Args:
        logits: (rows, classes) of the student.
        competent, incompetent: (rows, classes) of the old model and of one that was never trained.
        to_forget: (rows,) bool.
        temperature: T > 0; the loss is not multiplied by T².
        reduction: see `divergence`.

    Returns:
        Scalar.
    """
    teacher = torch.where(to_forget[:, None], incompetent, competent)
    return divergence(logits, teacher, temperature, reduction) / temperature**2


@editor("bad-teacher", paper="2205.08096", labels=False, kinds=PROBABILISTIC)
def bad_teacher(
    model: Classifier,
    forget: Labelled,
    retain: Labelled,
    *,
    seed: int = 0,
    share: float = 0.3,
    temperature: float = 1.0,
    reduction: Reduction = "batchmean",
    epochs: int = 1,
    learning_rate: float = 1e-4,
    batch_size: int = 256,
) -> Classifier:
    """Two teachers: an untrained network for the rows to forget, the old model for a sample of those to keep.

    Args:
        model, forget, retain, seed: see `edit`.
        share: of the retain rows that are drawn, once, in [0, 1].
        temperature: of both sides' outputs.
        reduction: "mean" is what the released code does, by a default of PyTorch's: the loss is divided by the number
            of classes too. Adam hardly notices.
        epochs, learning_rate, batch_size: of the descent (Adam, without weight decay).

    Raises:
        ValueError: an option is out of range.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share must be in [0, 1], not {share}")
    drawn = torch.as_tensor(np.random.default_rng([seed, 23]).permutation(len(retain)))
    kept = retain.subset(drawn[: round(share * len(retain))])
    rows, to_forget = kept.joined(forget), torch.arange(len(kept) + len(forget)) >= len(kept)
    competent, incompetent = model.predict(rows), fresh(model, seed).predict(rows)
    student = model.copied()

    def losses(epoch: int) -> Iterator[Tensor]:
        for i in batches(len(rows), batch_size, (seed, epoch)):
            logits = student.logits(rows.batch(i)[0])
            yield bad_teacher_loss(logits, competent[i], incompetent[i], to_forget[i], temperature, reduction)

    tuned(student, losses, epochs=epochs, learning_rate=learning_rate, optimizer="adam", weight_decay=0.0)
    student.facts["retain rows"] = len(kept)
    return student


@editor("scrub", paper="2302.09880", kinds=PROBABILISTIC)
def scrub(
    model: Classifier,
    forget: Labelled,
    retain: Labelled,
    *,
    seed: int = 0,
    msteps: int = 2,
    gamma: float = 0.99,
    alpha: float = 0.001,
    temperature: float = 4.0,
    rewind: Labelled | str | None = None,
    epochs: int = 3,
    learning_rate: float = 5e-4,
    batch_size: int = 64,
    forget_batch_size: int = 64,
    optimizer: Optimizer = "sgd",
    weight_decay: float = 5e-4,
) -> Classifier:
    """SCRUB: away from the old model on the rows to forget, close to it and to the labels on those to keep.

    An epoch is a pass over the forget rows with -KL, in the first `msteps` epochs only, and then a pass over the retain
    rows with γ CE + α KL; KL = `divergence`(student, old model). The defaults are the authors' for large data; theirs
    for small data are optimizer="adam", gamma=1, alpha=0.5, temperature=2, msteps=3, epochs=10, weight_decay=0.1,
    batch_size=32, forget_batch_size=64.

    Args:
        model, forget, retain, seed: see `edit`.
        msteps: epochs with a pass over the forget rows; with 0, alpha 0 and gamma 1 this is `ft`.
        gamma, alpha: weights of the labels and of the old model.
        temperature: of both sides' outputs.
        rewind: SCRUB+R: rows that were never trained on, or their source such as "digits:test"; those of the forget
            rows' classes count. The model goes back to the end of the first epoch that errs on the forget rows as
            often as the last one errs on these; where none does, it stays at the last.
        epochs, learning_rate, batch_size, optimizer, weight_decay: of the descent.
        forget_batch_size: of the passes over the forget rows.

    Returns:
        A changed copy; with `rewind`, `facts` say which epoch's it is.

    Raises:
        ValueError: an option is out of range.
        UsageError: none of the rows to rewind by is of the classes to forget.
    """
    held_out = None if rewind is None else _same_classes(rewind, forget)
    taught = {id(data): model.predict(data) for data in (forget, retain)}
    student, ends = model.copied(), []

    def passed(data: Labelled, size: int, key: tuple[int, ...]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for i in batches(len(data), size, key):
            inputs, labels = data.batch(i)
            yield student.logits(inputs), labels, taught[id(data)][i]

    def losses(epoch: int) -> Iterator[Tensor]:
        if epoch < msteps:
            for logits, _, teacher in passed(forget, forget_batch_size, (seed, epoch, 1)):
                yield -divergence(logits, teacher, temperature)
        for logits, labels, teacher in passed(retain, batch_size, (seed, epoch)):
            loss = gamma * F.cross_entropy(logits, labels)
            yield loss + alpha * divergence(logits, teacher, temperature) if alpha else loss
        if held_out is not None:
            # Runs once the epoch's last step is done: a generator goes on when its next loss is asked for.
            ends.append({name: t.clone() for name, t in student.module.state_dict().items()})

    tuned(
        student,
        losses,
        epochs=epochs,
        learning_rate=learning_rate,
        optimizer=optimizer,
        weight_decay=weight_decay,
    )
    if held_out is not None:
        _rewind(student, ends, forget, held_out)
    return student


def _same_classes(rows: Labelled | str, forget: Labelled) -> Labelled:
    if isinstance(rows, str):
        from demur.data.labelled_sources import read_labelled

        rows = read_labelled(rows)
    same = rows.subset(torch.isin(rows.labels, forget.labels.unique()).nonzero()[:, 0])
    if not len(same):
        raise UsageError(f"rewind: {rows.name} has no rows of the classes to forget")
    return same


def _rewind(student: Classifier, ends: list[dict[str, Tensor]], forget: Labelled, held_out: Labelled) -> None:
    aim, errors = _error(student, held_out), []
    for epoch, end in enumerate(ends, start=1):
        student.module.load_state_dict(end)
        errors.append(_error(student, forget))
        if errors[-1] >= aim or epoch == len(ends):
            student.facts["rewind"] = {"epoch": epoch, "error on held-out rows": aim, "errors on forget rows": errors}
            return


def _error(model: Classifier, data: Labelled) -> float:
    return 1 - float((model.predict(data).argmax(1) == data.labels).float().mean())
