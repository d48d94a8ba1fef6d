"""Labelled sets for classifiers: pictures or tables as tensors, and which of their rows are to be forgotten."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from demur.errors import UsageError
from demur.registry import nearest

if TYPE_CHECKING:
    from demur.data.tables import TableEncoding

__all__ = ["ForgetSplit", "Labelled", "split_off"]


@dataclass(frozen=True)
class Labelled:
    """Inputs with their classes.

    Attributes:
        inputs: (rows, …), float, or uint8 for pictures, which are read as shares of 255.
        labels: (rows,) class numbers.
        classes: the classes' names, by number.
        ids: (rows,) what a row is called in its source; a subset keeps them.
        groups: (rows,) a finer kind than the class, for instance who drew it; None where there is none.
        name: what messages call the set.
        encoding: of a table: how its rows became numbers.
    """

    inputs: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    ids: Tensor = field(default=None)  # type: ignore[assignment]
    groups: Tensor | None = None
    name: str = "data"
    encoding: TableEncoding | None = None

    def __post_init__(self) -> None:
        rows = len(self.inputs)
        if len(self.labels) != rows or (self.groups is not None and len(self.groups) != rows):
            raise UsageError(f"{self.name}: {rows} inputs but {len(self.labels)} labels")
        if rows and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < len(self.classes):
            worst = int(self.labels.max() if int(self.labels.min()) >= 0 else self.labels.min())
            raise UsageError(f"{self.name}: label {worst} is outside 0..{len(self.classes) - 1}")
        if self.ids is None:
            object.__setattr__(self, "ids", torch.arange(rows))

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def row_shape(self) -> str:
        """A row's shape in words, such as "3 × 32 × 32"."""
        return " × ".join(map(str, self.inputs.shape[1:]))

    def require_like(self, other: Labelled) -> None:
        """Refuse to go with a set of other rows or classes.

        Raises:
            UsageError: in which way they differ.
        """
        if self.inputs.shape[1:] != other.inputs.shape[1:] or self.classes != other.classes:
            raise UsageError(
                f"{self.name} has rows of shape {self.row_shape} in {len(self.classes)} classes, and {other.name} of "
                f"{other.row_shape} in {len(other.classes)}: give parts of one set"
            )

    def batch(self, rows: Tensor | slice | None = None) -> tuple[Tensor, Tensor]:
        """Inputs, as floats, and labels of some rows, or of all."""
        chosen = slice(None) if rows is None else rows
        inputs = self.inputs[chosen]
        return (inputs.float() / 255 if inputs.dtype == torch.uint8 else inputs), self.labels[chosen]

    def subset(self, rows: Tensor | Sequence[int], name: str | None = None) -> Labelled:
        """Some of the rows, in the given order."""
        rows = torch.as_tensor(rows, dtype=torch.long)
        groups = None if self.groups is None else self.groups[rows]
        return replace(
            self,
            inputs=self.inputs[rows],
            labels=self.labels[rows],
            ids=self.ids[rows],
            groups=groups,
            name=name or self.name,
        )

    def with_labels(self, labels: Tensor) -> Labelled:
        """The same inputs under other labels."""
        return replace(self, labels=labels)

    def joined(self, other: Labelled) -> Labelled:
        """These rows followed by others of the same kind."""
        groups = None
        if self.groups is not None and other.groups is not None:
            groups = torch.cat([self.groups, other.groups])
        return replace(
            self,
            inputs=torch.cat([self.inputs, other.inputs]),
            labels=torch.cat([self.labels, other.labels]),
            ids=torch.cat([self.ids, other.ids]),
            groups=groups,
        )

    def hash(self) -> str:
        """SHA-256 (hex) of inputs and labels, in their order."""
        digest = hashlib.sha256()
        for tensor in (self.inputs, self.labels):
            digest.update(f"{tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()


@dataclass(frozen=True)
class ForgetSplit:
    """A training set in two parts.

    Attributes:
        forget: rows to forget.
        retain: all others.
        kind: "class", "group", "random" or "rows".
    """

    forget: Labelled
    retain: Labelled
    kind: str

    @property
    def train(self) -> Labelled:
        """Both parts."""
        return self.retain.joined(self.forget)


def split_off(data: Labelled, what: str, seed: int = 0) -> ForgetSplit:
    """Part a training set into rows to forget and rows to keep.

    Args:
        data: the training set.
        what: `class:NAME[,NAME]` for whole classes (names or numbers), `group:NUMBER[,NUMBER]` for finer kinds,
            `random:0.1` for a share or `random:100` for a number of rows, or `rows:FILE` for the ids in a `.npy`
            or text file.
        seed: decides random rows.

    Raises:
        UsageError: it is none of these, names what is not there, or leaves nothing to keep or to forget.
    """
    kind, colon, value = what.partition(":")
    choose = {"class": _classes, "group": _groups, "random": _random, "rows": _listed}
    if not colon or kind not in choose:
        raise UsageError(f"forget {what!r}: write class:NAME, group:NUMBER, random:0.1, random:100 or rows:FILE")
    chosen = choose[kind](data, value, seed)
    if not chosen.any() or chosen.all():
        raise UsageError(f"forget {what!r} takes {'all' if chosen.any() else 'none'} of the {len(data)} rows")
    forget, retain = chosen.nonzero()[:, 0], (~chosen).nonzero()[:, 0]
    return ForgetSplit(data.subset(forget, "the forget set"), data.subset(retain, "the retain set"), kind)


def _classes(data: Labelled, value: str, seed: int) -> Tensor:
    wanted = []
    for name in value.split(","):
        name = name.strip()
        if name in data.classes:
            wanted.append(data.classes.index(name))
        elif name.isdecimal() and int(name) < len(data.classes):
            wanted.append(int(name))
        else:
            raise UsageError(f"{data.name} has no class {name!r}: {nearest(name, data.classes)}")
    return torch.isin(data.labels, torch.tensor(wanted))


def _groups(data: Labelled, value: str, seed: int) -> Tensor:
    if data.groups is None:
        raise UsageError(f"{data.name} has no groups: forget class:NAME or random:SHARE")
    names = [name.strip() for name in value.split(",")]
    if not all(name.isdecimal() for name in names):
        raise UsageError(f"group {value!r}: give numbers from 0 to {int(data.groups.max())}")
    return torch.isin(data.groups, torch.tensor([int(name) for name in names]))


def _random(data: Labelled, value: str, seed: int) -> Tensor:
    if not re.fullmatch(r"\d+|\d*\.\d+", value):
        raise UsageError(f"random {value!r}: give a share such as 0.1 or a number of rows")
    count = round(float(value) * len(data)) if "." in value else int(value)
    if count > len(data):
        raise UsageError(f"random:{value}: {data.name} has {len(data)} rows only")
    chosen = torch.zeros(len(data), dtype=torch.bool)
    chosen[torch.as_tensor(np.random.default_rng([seed, 11]).permutation(len(data))[:count])] = True
    return chosen


def _listed(data: Labelled, value: str, seed: int) -> Tensor:
    file = Path(value)
    try:
        listed = (
            np.load(file, allow_pickle=False) if file.suffix == ".npy" else np.loadtxt(file, dtype=np.int64, ndmin=1)
        )
    except (OSError, ValueError) as error:
        raise UsageError(f"rows:{value}: cannot be read as a list of row numbers: {error}") from error
    if listed.ndim != 1 or not np.issubdtype(listed.dtype, np.integer):
        raise UsageError(f"rows:{value}: holds {listed.dtype} of shape {listed.shape}, not a list of row numbers")
    values, counts = np.unique(listed, return_counts=True)
    unknown = np.setdiff1d(values, data.ids.numpy())
    if len(unknown) or (counts > 1).any():
        wrong = f"{unknown[0]} is no row" if len(unknown) else f"{values[counts > 1][0]} stands there twice"
        raise UsageError(f"rows:{value}: {wrong} of {data.name}")
    return torch.isin(data.ids, torch.as_tensor(values))
