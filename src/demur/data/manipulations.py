"""What can be wrong with training rows: a patch that stands for a class, two classes exchanged, labels in disorder.

Three manipulations of corrective unlearning (Goel et al. 2024, arXiv 2402.14015), done to one's own data to find out
whether a method undoes them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from demur.data.labelled import Labelled
from demur.errors import UnknownNameError, UsageError
from demur.registry import nearest

__all__ = ["BackdoorPatch", "InterclassSwap", "LabelShuffle", "Manipulated", "Manipulation", "make_manipulation"]

Corner = Literal["bottom_right", "bottom_left", "top_right", "top_left"]
_CORNERS: tuple[Corner, ...] = ("bottom_right", "bottom_left", "top_right", "top_left")


@dataclass(frozen=True)
class Manipulated:
    """A training set of which some rows were manipulated.

    Attributes:
        data: what a model is trained on.
        clean: the same rows before.
        rows: places of the manipulated rows, in the order in which they were drawn.
        manipulation: what was done, with what it took from the training set filled in.
    """

    data: Labelled
    clean: Labelled
    rows: Tensor
    manipulation: Manipulation


class Manipulation(Protocol):
    """A way in which rows go wrong."""

    def manipulate(self, data: Labelled, n: int, seed: int = 0) -> Manipulated:
        """Do it to n rows of a training set, drawn by the seed."""

    def shown(self, data: Labelled) -> Labelled:
        """Clean rows as they must be asked to see whether the manipulation took."""

    def concerned(self, labels: Tensor) -> Tensor:
        """(rows,) bool, by true labels: rows that corrected accuracy is about."""

    def wrong(self, labels: Tensor) -> Tensor:
        """(rows,) the class that the manipulation has a row called, by its true label; -1 where it has none."""


@dataclass(frozen=True)
class BackdoorPatch:
    """A bright square in a corner of pictures of all classes, which are then labelled as one class.

    Attributes:
        size: pixels of a side.
        corner: where it is.
        value: its brightness in the unit of `Labelled.batch`; None is the brightest of the training set.
        target: the class, by number.
    """

    size: int = 3
    corner: Corner = "bottom_right"
    value: float | None = None
    target: int = 0

    def __post_init__(self) -> None:
        if self.corner not in _CORNERS:
            raise UnknownNameError(f"no corner {self.corner!r}: {nearest(self.corner, _CORNERS)}")

    def manipulate(self, data: Labelled, n: int, seed: int = 0) -> Manipulated:
        """Stamp n random rows and give them the target's label.

        Raises:
            UsageError: there are fewer rows, the inputs are no pictures, the patch is larger than they are, or the
                target is no class.
        """
        if not 0 <= self.target < len(data.classes):
            raise UsageError(f"{data.name} has no class {self.target}: the patch's target is one of its classes")
        rows = _drawn(torch.arange(len(data)), n, data.name, seed)
        settled = self if self.value is not None else replace(self, value=float(data.batch()[0].max()))
        inputs, labels = data.inputs.clone(), data.labels.clone()
        inputs[rows] = settled.shown(data.subset(rows)).inputs
        labels[rows] = self.target
        return Manipulated(replace(data, inputs=inputs, labels=labels), data, rows, settled)

    def shown(self, data: Labelled) -> Labelled:
        """The rows with the patch on them and their labels as they are.

        Raises:
            UsageError: the inputs are no pictures, or the patch is larger than they are.
        """
        shape = tuple(data.inputs.shape[1:])
        if len(shape) != 3 or not 1 <= self.size <= min(shape[1:]):
            raise UsageError(f"a patch of {self.size} × {self.size} pixels does not fit rows of shape {shape}")
        down, across = self.corner.split("_")
        places = {
            "top": slice(0, self.size),
            "bottom": slice(shape[1] - self.size, None),
            "left": slice(0, self.size),
            "right": slice(shape[2] - self.size, None),
        }
        value = float(data.batch()[0].max()) if self.value is None else self.value
        inputs = data.inputs.clone()
        inputs[:, :, places[down], places[across]] = round(255 * value) if inputs.dtype == torch.uint8 else value
        return replace(data, inputs=inputs)

    def concerned(self, labels: Tensor) -> Tensor:
        """All rows."""
        return torch.ones_like(labels, dtype=torch.bool)

    def wrong(self, labels: Tensor) -> Tensor:
        """The target; none for its own rows, which are called so without any attack."""
        return torch.where(labels == self.target, -1, self.target)


@dataclass(frozen=True)
class InterclassSwap:
    """Rows of two classes that carry each other's label.

    Attributes:
        a, b: the classes, by number.
    """

    a: int
    b: int

    def manipulate(self, data: Labelled, n: int, seed: int = 0) -> Manipulated:
        """Exchange the labels of n/2 rows of either class.

        Raises:
            UsageError: n is odd, a class has fewer rows, or the classes are the same or unknown.
        """
        if n % 2:
            raise UsageError(f"{n} rows of two classes cannot be exchanged: choose an even number")
        if self.a == self.b or not all(0 <= c < len(data.classes) for c in (self.a, self.b)):
            raise UsageError(f"{data.name} has no two classes {self.a} and {self.b}")
        halves = [
            _drawn((data.labels == c).nonzero()[:, 0], n // 2, f"class {data.classes[c]} of {data.name}", seed)
            for c in (self.a, self.b)
        ]
        rows = torch.stack(halves, 1).flatten()
        labels = data.labels.clone()
        labels[rows] = self.wrong(labels[rows])
        return Manipulated(data.with_labels(labels), data, rows, self)

    def shown(self, data: Labelled) -> Labelled:
        """The rows as they are."""
        return data

    def concerned(self, labels: Tensor) -> Tensor:
        """Rows of the two classes."""
        return (labels == self.a) | (labels == self.b)

    def wrong(self, labels: Tensor) -> Tensor:
        """The other of the two."""
        other = torch.where(labels == self.a, self.b, torch.full_like(labels, -1))
        return torch.where(labels == self.b, self.a, other)


@dataclass(frozen=True)
class LabelShuffle:
    """Rows of all classes whose labels were shuffled among them."""

    def manipulate(self, data: Labelled, n: int, seed: int = 0) -> Manipulated:
        """Shuffle the labels of n random rows; some get their own back.

        Raises:
            UsageError: there are fewer rows.
        """
        rows = _drawn(torch.arange(len(data)), n, data.name, seed)
        order = torch.as_tensor(np.random.default_rng([seed, 14]).permutation(n))
        labels = data.labels.clone()
        labels[rows] = labels[rows[order]]
        return Manipulated(data.with_labels(labels), data, rows, self)

    def shown(self, data: Labelled) -> Labelled:
        """The rows as they are."""
        return data

    def concerned(self, labels: Tensor) -> Tensor:
        """All rows."""
        return torch.ones_like(labels, dtype=torch.bool)

    def wrong(self, labels: Tensor) -> Tensor:
        """None: every row went another way."""
        return torch.full_like(labels, -1)


_KINDS: dict[str, Callable[..., Manipulation]] = {
    "patch": BackdoorPatch,
    "swap": InterclassSwap,
    "shuffle": LabelShuffle,
}


def make_manipulation(kind: str, **options: object) -> Manipulation:
    """A manipulation by name.

    Args:
        kind: "patch", "swap" or "shuffle".
        options: its own: size, corner, value and target of a patch; a and b of a swap.

    Raises:
        UsageError: the name or an option is unknown, or an option is missing.
    """
    if kind not in _KINDS:
        raise UnknownNameError(f"no manipulation {kind!r}: {nearest(kind, _KINDS)}")
    try:
        return _KINDS[kind](**options)
    except TypeError as error:
        raise UsageError(f"manipulation {kind!r}: {str(error).partition(' ')[2]}") from None


def _drawn(rows: Tensor, n: int, name: str, seed: int) -> Tensor:
    """Some of the rows, in a random order."""
    if not 1 <= n <= len(rows):
        raise UsageError(f"{n} rows cannot be manipulated: {name} has {len(rows)}")
    return rows[torch.as_tensor(np.random.default_rng([seed, 13]).permutation(len(rows))[:n])]
