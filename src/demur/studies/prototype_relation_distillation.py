"""Prototype-sample relation distillation (arXiv 2303.14771): tasks in a row, and no old row kept.

Handwritten digits, two classes a task, five tasks. Measured with the task known: which of its two classes a picture
shows. Which of all ten it shows is told poorly by all learners of this size; that is printed and nothing is claimed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from demur.data.labelled import Labelled
from demur.data.labelled_sources import read_labelled
from demur.models.descent import batches
from demur.studies.registry import Progress, study
from demur.studies.results import Claim
from demur.training.continual import (
    PrototypeRelationDistillation,
    parted,
    small_encoder,
    small_projection,
    stream_scores,
)

if TYPE_CHECKING:
    import pandas as pd

CLASSES = [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
EPOCHS, FIRST_EPOCHS = 20, 40
ARMS: dict[str, dict[str, Any]] = {
    "PRD": {},
    "no distillation": {"distill_coef": 0.0},
    "teacher in evaluation mode": {"teacher_mode": "eval"},
    "softmax over samples": {"axis": "samples"},
}
SHARED, LWF = "teacher that shares weights", "learning without forgetting"
HEAT = 2.0  # temperature of learning without forgetting


def digits(part: str) -> list[Labelled]:
    """Handwritten digits, a set a task."""
    return parted(read_labelled(f"digits:{part}"), CLASSES)


class _SharedTeacher(PrototypeRelationDistillation):
    """A slip that must show: the teacher is the model itself."""

    def _distillation(self, views: Tensor, features: Tensor) -> Tensor:
        assert self._teacher is not None
        self._teacher.encoder = self.encoder
        self._teacher.prototypes = [p.detach() for p in self.prototypes[:-1]]
        return super()._distillation(views, features)


class _LearningWithoutForgetting(PrototypeRelationDistillation):
    """Learning without forgetting (arXiv 1606.09282): linear heads, cross entropy, and old heads' outputs kept."""

    def _losses(
        self, data: Labelled, classes: Sequence[int], seed: tuple[int, ...], generator: torch.Generator
    ) -> Iterator[Tensor]:
        for rows in batches(len(data), self.batch_size, seed):
            inputs, labels = data.batch(rows)
            views, both = torch.cat([self.view(inputs, generator) for _ in range(2)]), labels.repeat(2)
            features = self.features(views)
            places = torch.searchsorted(torch.tensor(classes), both)
            loss = F.cross_entropy(features @ self.prototypes[-1].T, places)
            if self._teacher is not None:
                with torch.no_grad():
                    before = self._teacher.encoder(views)
                for head, old in zip(self.prototypes[:-1], self._teacher.prototypes, strict=True):
                    now, then = ((f @ p.T / HEAT).log_softmax(1) for f, p in ((features, head), (before, old)))
                    loss = loss + HEAT**2 * F.kl_div(now, then, reduction="batchmean", log_target=True)
            yield loss


def learn(learner: PrototypeRelationDistillation, told: Callable[[int], None]) -> dict[str, float]:
    """All tasks in a row, and what is left at the end."""
    tests, matrix = digits("test"), []
    for number, data in enumerate(digits("train")):
        told(number)
        matrix.append(learner.fit_task(data).accuracies(tests))
    whole = learner.accuracies(tests, known_task=False)
    return {**stream_scores(matrix), "of all classes": sum(whole) / len(whole)}


@study("prototype-relation-distillation", paper="2303.14771", minutes=1, seeds=(1, 2, 3))
def digits_in_five_tasks(seed: int, progress: Progress) -> dict[str, float]:
    """Six learners through five tasks."""
    measured = {}
    kinds = [(arm, PrototypeRelationDistillation, options) for arm, options in ARMS.items()]
    kinds += [(SHARED, _SharedTeacher, {}), (LWF, _LearningWithoutForgetting, {"prototypes_lr": 0.01})]
    for done, (arm, kind, options) in enumerate(kinds):
        learner = kind(
            small_encoder(seed=seed),
            small_projection(seed=seed),
            epochs=EPOCHS,
            first_epochs=FIRST_EPOCHS,
            seed=seed,
            **options,
        )

        def told(task: int, done: int = done, arm: str = arm) -> None:
            progress(done * len(CLASSES) + task, len(kinds) * len(CLASSES), arm)

        measured |= {f"{arm} {name}": value for name, value in learn(learner, told).items()}
    return measured


@digits_in_five_tasks.claims
def claims(m: pd.DataFrame) -> Iterator[Claim]:
    """What the paper says of its loss, at a size that runs here."""

    def of(what: str) -> dict[str, pd.Series]:
        return {arm: m[f"{arm} {what}"] for arm in (*ARMS, SHARED, LWF)}

    accuracy, forgetting = of("accuracy"), of("forgetting")
    yield Claim(
        text="Relation distillation keeps old tasks: final mean accuracy above that without it (difference)",
        measured=accuracy["PRD"] - accuracy["no distillation"],
        threshold=">= 0.08",
        baselines=accuracy,
    )
    yield Claim(
        text="Its final mean accuracy over all five tasks",
        measured=accuracy["PRD"],
        threshold=">= 0.9",
        baselines={"of all ten classes, nothing claimed": m["PRD of all classes"], **of("learned")},
    )
    yield Claim(
        text="It forgets little: mean of each task's best accuracy less its last",
        measured=forgetting["PRD"],
        threshold="<= 0.06",
        baselines=forgetting,
    )
    yield Claim(
        text="and less than without it (difference of forgetting)",
        measured=forgetting["no distillation"] - forgetting["PRD"],
        threshold="> 0",
        baselines=forgetting,
    )
    yield Claim(
        text="A teacher that shares the model's weights teaches nothing (final accuracy below the real teacher's, "
        "difference)",
        measured=accuracy["PRD"] - accuracy[SHARED],
        threshold=">= 0.08",
        kind="ours",
        baselines=accuracy,
    )
