"""Learning task after task without old rows: prototype-sample relation distillation (arXiv 2303.14771).

Features are trained by supervised contrastive loss; a prototype a class, in the same space, is the classifier. What
keeps old prototypes true is a loss on the new task's inputs alone: how they relate to the old prototypes must stay as
it was at the end of the task before.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from demur.errors import DemurError, UsageError
from demur.files import atomic_directory, write_json
from demur.models.descent import batches
from demur.objectives import prototype_alignment, relation_distillation, supcon
from demur.objectives.prototypes import Axis

if TYPE_CHECKING:
    from demur.data.labelled import Labelled

__all__ = [
    "PrototypeRelationDistillation",
    "View",
    "parted",
    "shifted_view",
    "small_encoder",
    "small_projection",
    "stream_scores",
]

View = Callable[[Tensor, torch.Generator], Tensor]
"""A random view of a batch of inputs: a picture a bit moved, a bit darker."""

_CHUNK = 1024


def shifted_view(inputs: Tensor, generator: torch.Generator) -> Tensor:
    """A view of pictures: moved by up to an eighth of their size, brightness × 0.8 to 1.2, noise of 0.1.

    Args:
        inputs: (batch, channels, height, width).
        generator: draws the view.
    """
    height, width = inputs.shape[-2:]
    most = max(1, min(height, width) // 8)
    padded = F.pad(inputs, (most,) * 4)
    corners = torch.randint(2 * most + 1, (2, len(inputs)), generator=generator)
    rows = corners[0, :, None] + torch.arange(height)
    columns = corners[1, :, None] + torch.arange(width)
    moved = padded[torch.arange(len(inputs))[:, None, None], :, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)
    bright = 0.8 + 0.4 * torch.rand(len(inputs), 1, 1, 1, generator=generator)
    return moved * bright + 0.1 * torch.randn(moved.shape, generator=generator)


def small_encoder(channels: int = 1, features: int = 64, seed: int = 0) -> nn.Module:
    """Two convolutions and a linear layer, each with batch normalisation: for pictures from 8 × 8 pixels.

    Without normalisation before the last rectifier the features of the first task's few classes leave no room for more.

    Args:
        channels: of a picture.
        features: how many come out, at least 0 each.
        seed: of the initial weights.
    """
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(channels, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(512, features),
        nn.BatchNorm1d(features),
        nn.ReLU(),
    )


def small_projection(features: int = 64, hidden: int = 64, out: int = 32, seed: int = 0) -> nn.Module:
    """Three linear layers from features to the space of the contrastive loss.

    Args:
        features, hidden, out: widths.
        seed: of the initial weights.
    """
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, out)
    )


@dataclass
class _Teacher:
    """Encoder and prototypes as they were at the end of the task before."""

    encoder: nn.Module
    prototypes: list[Tensor]


class PrototypeRelationDistillation:
    """A learner of tasks with disjoint classes that keeps no row of any of them.

    Args:
        encoder: inputs → (batch, features); trained in place.
        projection: features → the space of the contrastive loss; trained in place.
        supcon_temperature: τ of the contrastive loss.
        prototypes_coef: weight of the loss that moves the new task's prototypes.
        distill_coef: weight of the distillation; 0 is learning without it.
        distill_temperature: T of its softmax.
        axis: over what that softmax runs, see `objectives.relation_distillation`.
        teacher_mode: "train" (the frozen model normalises with the new batch's statistics, as the paper's code does)
            or "eval" (with those that it had).
        learning_rate, momentum, weight_decay, batch_size: of the descent on encoder and projection.
        prototypes_lr: of the prototypes, by plain descent; with few steps 0.01, as in the paper, leaves them where
            they were drawn.
        epochs: of a task.
        first_epochs: of the first task, which begins with an untrained encoder.
        view: draws a view of a batch; every input is seen in two.
        seed: of prototypes, order and views.

    Attributes:
        tasks: class numbers of each task so far.
        prototypes: (classes, features) of each task so far.
    """

    def __init__(
        self,
        encoder: nn.Module,
        projection: nn.Module,
        *,
        supcon_temperature: float = 0.1,
        prototypes_coef: float = 2.0,
        distill_coef: float = 4.0,
        distill_temperature: float = 1.0,
        axis: Axis = "classes",
        teacher_mode: Literal["train", "eval"] = "train",
        learning_rate: float = 0.01,
        momentum: float = 0.9,
        weight_decay: float = 1e-4,
        batch_size: int = 64,
        prototypes_lr: float = 0.5,
        epochs: int = 20,
        first_epochs: int = 40,
        view: View = shifted_view,
        seed: int = 0,
    ) -> None:
        if axis not in ("classes", "samples") or teacher_mode not in ("train", "eval"):
            raise UsageError(
                f"axis is classes or samples and teacher_mode train or eval, not {axis} and {teacher_mode}"
            )
        self.encoder, self.projection = encoder, projection
        self.supcon_temperature, self.prototypes_coef = supcon_temperature, prototypes_coef
        self.distill_coef, self.distill_temperature = distill_coef, distill_temperature
        self.axis, self.teacher_mode = axis, teacher_mode
        self.learning_rate, self.momentum, self.weight_decay = learning_rate, momentum, weight_decay
        self.batch_size, self.prototypes_lr = batch_size, prototypes_lr
        self.epochs, self.first_epochs, self.view, self.seed = epochs, first_epochs, view, seed
        self.tasks: list[list[int]] = []
        self.prototypes: list[nn.Parameter] = []
        self._teacher: _Teacher | None = None

    def features(self, inputs: Tensor) -> Tensor:
        """(batch, features) of inputs, in whatever mode the encoder is."""
        return _features(self.encoder, inputs)

    def fit_task(
        self, data: Labelled, progress: Callable[[int, int], Any] | None = None
    ) -> PrototypeRelationDistillation:
        """Learn the next task: the classes of these rows.

        Args:
            data: its rows; none of them is kept.
            progress: told of epochs done and to be done.

        Returns:
            The learner.

        Raises:
            UsageError: there are no rows, or a class belongs to an earlier task.
            DemurError: the loss is no number any more.
        """
        classes = [int(c) for c in data.labels.unique()]
        again = sorted(set(classes) & {c for task in self.tasks for c in task})
        if again or not classes:
            named = f"class {data.classes[again[0]]!r} belongs to an earlier task" if again else "a task has no rows"
            raise UsageError(f"task {len(self.tasks)}: {named}")
        number = len(self.tasks)
        generator = torch.Generator().manual_seed(1000 * self.seed + number)
        self._begin(classes, data, generator)
        body = [*self.encoder.parameters(), *self.projection.parameters()]
        step = torch.optim.SGD(
            [
                {"params": body, "momentum": self.momentum, "weight_decay": self.weight_decay},
                {"params": self.prototypes, "lr": self.prototypes_lr},
            ],
            lr=self.learning_rate,
        )
        epochs = self.epochs if number else self.first_epochs
        self.encoder.train()
        for epoch in range(epochs):
            for loss in self._losses(data, classes, (self.seed, number, epoch), generator):
                if not bool(loss.isfinite()):
                    raise DemurError(f"task {number}: the loss is no number; try a lower learning rate")
                step.zero_grad(set_to_none=True)
                loss.backward()
                step.step()
            if progress is not None:
                progress(epoch + 1, epochs)
        for module in (self.encoder, self.projection):
            module.zero_grad(set_to_none=True)
            module.eval()
        self._remember()
        return self

    def _begin(self, classes: list[int], data: Labelled, generator: torch.Generator) -> None:
        """Draw the task's prototypes as the rows of a new linear layer."""
        self.encoder.eval()
        with torch.no_grad():
            width = self.features(data.batch(slice(0, 1))[0]).shape[1]
        drawn = (2 * torch.rand(len(classes), width, generator=generator) - 1) / width**0.5
        self.tasks.append(classes)
        self.prototypes.append(nn.Parameter(drawn))

    def _losses(
        self, data: Labelled, classes: Sequence[int], seed: tuple[int, ...], generator: torch.Generator
    ) -> Iterator[Tensor]:
        own = torch.tensor(classes)
        for rows in batches(len(data), self.batch_size, seed):
            inputs, labels = data.batch(rows)
            views, both = torch.cat([self.view(inputs, generator) for _ in range(2)]), labels.repeat(2)
            features = self.features(views)
            loss = supcon(self.projection(features), both, self.supcon_temperature)
            loss = loss + self.prototypes_coef * prototype_alignment(
                features, self.prototypes[-1], torch.searchsorted(own, both)
            )
            if self._teacher is not None and self.distill_coef:
                loss = loss + self.distill_coef * self._distillation(views, features)
            yield loss

    def _distillation(self, views: Tensor, features: Tensor) -> Tensor:
        """Over all earlier tasks: the new views must relate to their prototypes as they did."""
        assert self._teacher is not None
        # In training mode the teacher's running statistics move, but nothing reads them.
        self._teacher.encoder.train(self.teacher_mode == "train")
        with torch.no_grad():
            before = _features(self._teacher.encoder, views)
        parts = [
            relation_distillation(features, now, before, then, self.distill_temperature, self.axis)
            for now, then in zip(self.prototypes[:-1], self._teacher.prototypes, strict=True)
        ]
        return torch.stack(parts).sum()

    @torch.no_grad()
    def predict(self, data: Labelled, task: int | None = None) -> Tensor:
        """(rows,) class numbers by the nearest prototype in angle.

        Args:
            data: rows; their labels are not read.
            task: only the classes of this task are possible answers; those of all tasks by default.

        Raises:
            UsageError: there is no such task, or none yet.
        """
        if not self.tasks or (task is not None and not 0 <= task < len(self.tasks)):
            raise UsageError(f"there is no task {task}: {len(self.tasks)} are learned" if self.tasks else "no task yet")
        chosen = range(len(self.tasks)) if task is None else [task]
        classes = torch.tensor([c for t in chosen for c in self.tasks[t]])
        units = F.normalize(torch.cat([self.prototypes[t] for t in chosen]), dim=1)
        self.encoder.eval()
        parts = [
            (self.features(data.batch(slice(i, i + _CHUNK))[0]) @ units.T).argmax(1)
            for i in range(0, max(len(data), 1), _CHUNK)
        ]
        return classes[torch.cat(parts)]

    def accuracies(self, tests: Sequence[Labelled], known_task: bool = True) -> list[float]:
        """Accuracy on each task so far.

        Args:
            tests: test rows of each task, in the order of the tasks.
            known_task: only the task's own classes are possible answers.
        """
        return [
            float((self.predict(test, number if known_task else None) == test.labels).float().mean())
            for number, test in enumerate(tests[: len(self.tasks)])
        ]

    def save(self, folder: str | Path) -> None:
        """Write encoder, projection and prototypes as safetensors, and the tasks' classes as JSON, all or nothing."""
        from safetensors.torch import save_file, save_model

        with atomic_directory(folder) as temporary:
            save_model(self.encoder, str(temporary / "encoder.safetensors"))
            save_model(self.projection, str(temporary / "projection.safetensors"))
            named = {f"task_{n}": p.detach().contiguous() for n, p in enumerate(self.prototypes)}
            save_file(named, str(temporary / "prototypes.safetensors"))
            write_json(temporary / "tasks.json", self.tasks)

    def restore(self, folder: str | Path) -> PrototypeRelationDistillation:
        """Take up what `save` wrote: predictions are the same, and the next task can be learned.

        Args:
            folder: of a learner with an encoder and a projection like these.

        Raises:
            UsageError: the folder does not hold that.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file, load_model

        folder = Path(folder)
        try:
            self.tasks = json.loads((folder / "tasks.json").read_text(encoding="utf-8"))
            load_model(self.encoder, str(folder / "encoder.safetensors"))
            load_model(self.projection, str(folder / "projection.safetensors"))
            kept = load_file(str(folder / "prototypes.safetensors"))
            self.prototypes = [nn.Parameter(kept[f"task_{number}"]) for number in range(len(self.tasks))]
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise UsageError(f"{folder} does not hold this encoder with its prototypes: {error}") from error
        self._remember()
        return self

    def _remember(self) -> None:
        self.encoder.eval()
        self._teacher = _Teacher(copy.deepcopy(self.encoder), [p.detach().clone() for p in self.prototypes])


def _features(encoder: nn.Module, inputs: Tensor) -> Tensor:
    out = encoder(inputs)
    return (out if isinstance(out, Tensor) else out.logits).flatten(1)


def parted(data: Labelled, tasks: Sequence[Sequence[int]]) -> list[Labelled]:
    """The rows of each task, by its classes.

    Args:
        data: rows of all tasks.
        tasks: class numbers of each.
    """
    return [
        data.subset(torch.isin(data.labels, torch.tensor(list(classes))).nonzero()[:, 0], f"task {number}")
        for number, classes in enumerate(tasks)
    ]


def stream_scores(matrix: Sequence[Sequence[float]]) -> dict[str, float]:
    """What a stream of tasks left behind.

    Args:
        matrix: row t: accuracy on tasks 0 to t after task t was learned.

    Returns:
        "accuracy": mean over tasks at the end; "learned": mean right after each was learned; "forgetting": mean over
        tasks of the best accuracy ever less the last, 0 for the last task; "backward_transfer": mean over all tasks but
        the last of the last accuracy less that right after learning.

    Raises:
        UsageError: the matrix is not triangular.
    """
    if not matrix or any(len(row) != number + 1 for number, row in enumerate(matrix)):
        raise UsageError("row t of an accuracy matrix holds the accuracies on tasks 0 to t")
    last = np.array(matrix[-1])
    learned = np.array([row[-1] for row in matrix])
    best = np.array([max(row[task] for row in matrix[task:]) for task in range(len(matrix))])
    return {
        "accuracy": float(last.mean()),
        "learned": float(learned.mean()),
        "forgetting": float((best - last).mean()),
        "backward_transfer": float((last - learned)[:-1].mean()) if len(matrix) > 1 else 0.0,
    }
