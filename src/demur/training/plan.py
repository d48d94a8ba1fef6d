"""Which rows meet in which step: fixed before training starts, by the seed alone, so that a resumed run repeats it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset, Sampler

from demur.data.batch import Encoded
from demur.errors import UsageError

__all__ = ["EpochSampler", "Plan", "PlannedRows", "paired_plan"]


@dataclass(frozen=True)
class Plan:
    """The rows of every step of a run.

    Attributes:
        tables: by role, the encoded rows.
        order: by role, (epochs, items) indices into the role's table.
    """

    tables: Mapping[str, Sequence[Encoded]]
    order: Mapping[str, NDArray[np.int64]]

    @property
    def items(self) -> int:
        """Items in an epoch."""
        return int(next(iter(self.order.values())).shape[1])

    def used(self, role: str) -> NDArray[np.int64]:
        """Indices of a role's rows that some step uses, ascending."""
        return np.unique(self.order[role])


def paired_plan(
    anchored: Mapping[str, Sequence[Encoded]],
    drawn: Mapping[str, Sequence[Encoded]],
    *,
    epochs: int,
    seed: int,
    paired: Mapping[str, Sequence[Encoded]] | None = None,
    alternates: Callable[[NDArray[np.int64]], tuple[Sequence[Encoded], NDArray[np.int64]]] | None = None,
) -> Plan:
    """Go through the anchored rows once an epoch, in a new order, and draw partners uniformly with replacement.

    Args:
        anchored: roles that share their row index, for instance chosen and rejected answers.
        drawn: roles whose rows are drawn anew for every item.
        epochs: passes over the anchored rows.
        seed: decides everything.
        paired: roles whose rows go with the forget rows, index by index, whether these are anchored or drawn.
        alternates: given the (epochs, items) forget rows, the table and the indices of the role `alternate`.

    Raises:
        UsageError: a set is empty, or anchored sets differ in length.
    """
    for role, table in {**anchored, **drawn}.items():
        if not table:
            raise UsageError(f"the {role} set is empty")
    sizes = {role: len(t) for role, t in anchored.items()}
    if len(set(sizes.values())) != 1:
        raise UsageError(f"rows that belong together differ in number: {sizes}")
    (n,) = set(sizes.values())
    generator = np.random.default_rng(seed)
    shuffled = np.stack([generator.permutation(n) for _ in range(epochs)])
    tables: dict[str, Sequence[Encoded]] = {**anchored, **drawn}
    order = dict.fromkeys(anchored, shuffled)
    for role, table in drawn.items():
        order[role] = generator.integers(len(table), size=(epochs, n))
    for role, table in (paired or {}).items():
        if len(table) != len(tables["forget"]):
            raise UsageError(f"{len(table)} {role} rows cannot go with {len(tables['forget'])} forget rows")
        tables[role], order[role] = table, order["forget"]
    if alternates is not None:
        tables["alternate"], order["alternate"] = alternates(order["forget"])
    return Plan(tables, order)


class PlannedRows(Dataset[dict[str, int]]):
    """The plan as a data set: an (epoch, item) pair gives the row of each role."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def __len__(self) -> int:
        return self.plan.items

    def __getitem__(self, key: tuple[int, int]) -> dict[str, int]:  # type: ignore[override]
        epoch, item = key
        return {role: int(rows[epoch, item]) for role, rows in self.plan.order.items()}


class EpochSampler(Sampler[tuple[int, int]]):
    """Yields (epoch, item) in the plan's order; the trainer says which epoch it is."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.epoch = plan, 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer at the start of each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.plan.items

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((self.epoch, item) for item in range(self.plan.items))
