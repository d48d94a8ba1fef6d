"""Worst-case forget sets: the rows of a training set that are hardest to make a model forget.

Random forget sets make forgetting look easier, and vary more, than it is. The search (Fan et al. 2024, arXiv
2403.07362) weighs every row, forgets by the weights, and moves them to the rows that the model still fits best.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from demur.audits.classifiers.attacks import mia_confidence
from demur.editing import edit
from demur.editing.weighted import sign_descent
from demur.errors import DemurError, UsageError

if TYPE_CHECKING:
    from demur.data.labelled import Labelled
    from demur.models.classifier import Classifier

__all__ = [
    "Difficulty",
    "FoundSet",
    "Unlearner",
    "WorstCaseForgetSet",
    "forget_set_difficulty",
    "project_capped_simplex",
    "rank_by_loss",
    "row_losses",
]

Mode = Literal["worst", "easiest"]


class Unlearner(Protocol):
    """A lower level: forgets rows of a set by weights."""

    def __call__(self, model: Classifier, data: Labelled, weights: Tensor, *, seed: int) -> Classifier:
        """A changed copy of the model that forgot each row as far as its (rows,) weight, in [0, 1], says."""


@dataclass(frozen=True)
class FoundSet:
    """A forget set that was searched for.

    Attributes:
        indices: places of its rows in the training set, ascending; with groups the groups' numbers.
        weights: (rows,) or (groups,) the search's last weights before the highest became the set.
        history: by outer step: mean loss on the set of the highest weights after forgetting (`loss`), how many of its
            rows are new (`changed`) and the largest change of a weight (`moved`).
    """

    indices: Tensor
    weights: Tensor
    history: list[dict[str, float]]


def project_capped_simplex(a: Tensor, m: float, tolerance: float = 1e-9) -> Tensor:
    """The nearest point of {w in [0, 1]^N, Σ w = m}: w = clip(a - μ, 0, 1), μ by bisection in float64.

    Args:
        a: (N,) any point.
        m: the sum, in [0, N].
        tolerance: of the sum.

    Returns:
        (N,) in float64.

    Raises:
        ValueError: m is out of range, or a holds what is no number.
    """
    point = a.double()
    if not 0 <= m <= len(point):
        raise ValueError(f"no {len(point)} shares sum to {m}")
    if not bool(point.isfinite().all()):
        raise ValueError("a point with values that are no numbers has no projection")
    low, high = float(point.min()) - 1, float(point.max())
    for _ in range(200):
        middle = (low + high) / 2
        excess = float((point - middle).clamp(0, 1).sum()) - m
        if abs(excess) <= tolerance or middle in (low, high):
            break
        low, high = (middle, high) if excess > 0 else (low, middle)
    return (point - middle).clamp(0, 1)


@torch.no_grad()
def row_losses(model: Classifier, data: Labelled) -> Tensor:
    """(rows,) cross entropy of each row in the set's order, in evaluation mode, in float64."""
    return F.cross_entropy(model.predict(data).double(), data.labels, reduction="none")


def rank_by_loss(model: Classifier, data: Labelled, size: int, mode: Mode = "worst") -> Tensor:
    """The rows that a model fits best ("worst" to forget) or least: the search's first guess, without any forgetting.

    Returns:
        (size,) places, ascending.
    """
    losses = row_losses(model, data)
    return _highest(-losses if mode == "worst" else losses, size)


def _highest(weights: Tensor, size: int) -> Tensor:
    return weights.argsort(descending=True, stable=True)[:size].sort().values


@dataclass(frozen=True)
class WorstCaseForgetSet:
    """A search for the forget set of a size that a model goes on fitting best, or least, after forgetting it.

        min over w of Σ w_i ℓ_i(θ(w)) + γ ‖w‖²,  w in [0, 1]^N,  Σ w = m            (arXiv 2403.07362, eq. 3)

    Each outer step forgets by the weights from the model as it was trained, then takes one projected gradient step;
    the easiest set has the losses' sign turned.

    Attributes:
        size: rows (with groups: groups) in the set, or a share of them if it is below 1.
        mode: "worst" is hardest to forget.
        unlearner: "ft" is `sign_descent`; the name of another editing method forgets the rows of the highest weights;
            a function takes (model, data, weights, seed=…).
        outer_steps: projected gradient steps.
        lower_epochs, lower_rate, batch_size: of "ft".
        options: of an editing method that is named.
        step: the step's length; "auto" is 1/(2γ), which solves the outer problem for the losses of the moment, but at
            most 10 over their median. Too short a step returns the random set that the search starts from.
        gamma: γ ≥ 0.
        binarize_every: outer steps between two in which the weights become 0 and 1.
        groups: (rows,) numbers from 0, for instance classes: whole groups are weighed, by their rows' mean loss.
        seed: of the random start and of the lower level.
    """

    size: float
    mode: Mode = "worst"
    unlearner: str | Unlearner = "ft"
    outer_steps: int = 20
    lower_epochs: int = 2
    lower_rate: float = 1e-3
    batch_size: int = 64
    options: Mapping[str, Any] | None = None
    step: float | Literal["auto"] = "auto"
    gamma: float = 1e-4
    binarize_every: int = 20
    groups: Sequence[int] | Tensor | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.mode not in ("worst", "easiest"):
            raise UsageError(f"mode must be worst or easiest, not {self.mode!r}")
        if self.outer_steps < 1 or self.binarize_every < 1 or self.gamma < 0:
            raise UsageError("outer_steps and binarize_every must be at least 1, gamma at least 0")
        if not (self.step == "auto" or (isinstance(self.step, int | float) and self.step > 0)):
            raise UsageError(f"step must be auto or above 0, not {self.step!r}")

    def find(self, model: Classifier, data: Labelled, progress: Callable[[int, int], Any] | None = None) -> FoundSet:
        """Search.

        Args:
            model: the trained model; it is left as it is.
            data: its training set.
            progress: called with outer steps done and in all.

        Raises:
            UsageError: the size or the groups do not fit the data.
            DemurError: a loss is no number.
        """
        groups = self._groups(data)
        count = len(data) if groups is None else int(groups.max()) + 1
        size = self._size(count)
        forget = self._lower(size, groups)
        start = np.random.default_rng([self.seed, 16]).permutation(count)[:size]
        weights = torch.zeros(count, dtype=torch.float64)
        weights[torch.as_tensor(start)] = 1
        chosen, step, history = _highest(weights, size), self.step, []
        for outer in range(1, self.outer_steps + 1):
            of_rows = weights if groups is None else weights[groups]
            losses = row_losses(forget(model, data, of_rows, seed=self.seed), data)
            if groups is not None:
                losses = groups.bincount(losses) / groups.bincount()
            if not bool(losses.isfinite().all()):
                raise DemurError("the model that forgot has losses that are no numbers: lower lower_rate")
            if step == "auto":
                step = self._auto_step(losses)
            signed = losses if self.mode == "worst" else -losses
            before = weights
            weights = project_capped_simplex(weights - step * (signed + 2 * self.gamma * weights), size)
            moved, last = float((weights - before).abs().max()), chosen
            chosen = _highest(weights, size)
            changed = int((~torch.isin(chosen, last)).sum())
            history.append({"loss": float(losses[chosen].mean()), "changed": changed, "moved": moved})
            if outer % self.binarize_every == 0 and outer < self.outer_steps:
                weights = torch.zeros_like(weights).index_fill_(0, chosen, 1.0)
            if progress is not None:
                progress(outer, self.outer_steps)
        return FoundSet(chosen, weights, history)

    def _size(self, count: int) -> int:
        size = round(self.size * count) if 0 < self.size < 1 else self.size
        if size != int(size) or not 0 < size < count:
            kind = "rows" if self.groups is None else "groups"
            raise UsageError(f"a forget set of size {self.size:g} is no part of {count} {kind}")
        return int(size)

    def _groups(self, data: Labelled) -> Tensor | None:
        if self.groups is None:
            return None
        groups = torch.as_tensor(self.groups, dtype=torch.long)
        if groups.shape != (len(data),):
            raise UsageError(f"{len(groups)} group numbers for {len(data)} rows of {data.name}")
        if not torch.equal(groups.unique(), torch.arange(int(groups.max()) + 1)):
            raise UsageError("groups must be numbered from 0 without gaps")
        return groups

    def _auto_step(self, losses: Tensor) -> float:
        steep = 10 / max(float(losses.abs().median()), 1e-12)
        return min(steep, 1 / (2 * self.gamma)) if self.gamma else steep

    def _lower(self, size: int, groups: Tensor | None) -> Unlearner:
        if callable(self.unlearner):
            return self.unlearner
        if self.unlearner == "ft":
            return partial(
                sign_descent, epochs=self.lower_epochs, learning_rate=self.lower_rate, batch_size=self.batch_size
            )
        return partial(_forget_highest, self.unlearner, dict(self.options or {}), size, groups)


def _forget_highest(
    method: str,
    options: Mapping[str, Any],
    size: int,
    groups: Tensor | None,
    model: Classifier,
    data: Labelled,
    weights: Tensor,
    *,
    seed: int,
) -> Classifier:
    """A lower level that needs a set: the rows of the highest weights."""
    if groups is None:
        places = _highest(weights, size)
    else:
        by_group = torch.zeros(int(groups.max()) + 1, dtype=weights.dtype).index_copy_(0, groups, weights)
        places = torch.isin(groups, _highest(by_group, size)).nonzero()[:, 0]
    kept = torch.ones(len(data), dtype=torch.bool).index_fill_(0, places, False).nonzero()[:, 0]
    return edit(method, model, data.subset(places), data.subset(kept), seed=seed, **options)


@dataclass(frozen=True)
class Difficulty:
    """What a model that was trained without a forget set does on it.

    Attributes:
        losses: (rows,) cross entropy of the set's rows, in nats; the lower, the harder the set is to forget.
        wrong: (rows,) whether each was got wrong.
        nonmember_rate: share of them that the confidence attack takes for never seen.
        test_right: (test rows,) whether each was got right.
    """

    losses: NDArray[np.float64]
    wrong: NDArray[np.bool_]
    nonmember_rate: float
    test_right: NDArray[np.bool_]

    @property
    def summary(self) -> dict[str, float]:
        """`unlearning_accuracy` (share got wrong), mean `loss`, `mia_nonmember_rate` and `test_accuracy`."""
        return {
            "unlearning_accuracy": float(self.wrong.mean()),
            "loss": float(self.losses.mean()),
            "mia_nonmember_rate": self.nonmember_rate,
            "test_accuracy": float(self.test_right.mean()),
        }


def forget_set_difficulty(retrained: Classifier, forget: Labelled, retain: Labelled, test: Labelled) -> Difficulty:
    """How well a forget set is fitted by a model that was trained without it.

    Args:
        retrained: trained on the retain rows.
        forget, retain: the two parts of the training set.
        test: rows never trained on.

    Raises:
        UsageError: a set is empty.
    """

    def of_label(data: Labelled) -> NDArray[np.float64]:
        return np.exp(-row_losses(retrained, data).numpy())

    def right(data: Labelled) -> NDArray[np.bool_]:
        return (retrained.predict(data).argmax(1) == data.labels).numpy()

    rate = mia_confidence(of_label(retain), of_label(test), of_label(forget))
    return Difficulty(row_losses(retrained, forget).numpy(), ~right(forget), rate, right(test))
