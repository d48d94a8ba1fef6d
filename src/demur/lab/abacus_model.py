"""The Abacus's base model: it solves short problems mostly and long ones rarely."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar

from demur.files import hash_json
from demur.lab.abacus import ABACUS_SPLITS, Abacus, Workbook
from demur.lab.dense import LlamaRecipe

__all__ = ["AbacusRecipe"]


@dataclass(frozen=True)
class AbacusRecipe(LlamaRecipe):
    """A model that learned from problems of mostly one to three steps.

    Attributes:
        workbook: the world's size.
    """

    splits: ClassVar[tuple[str, ...]] = ("base",)
    row_splits: ClassVar[tuple[str, ...]] = tuple(ABACUS_SPLITS)

    vocabulary: int = 768
    width: int = 96
    epochs: int = 7
    workbook: Workbook = field(default_factory=Workbook)

    def text_hash(self) -> str:
        return hash_json(list(self.texts()))

    def texts(self) -> Iterator[str]:
        for split in ("base", "train", "held-out-templates"):
            for row in _rows(self.world, self.workbook, split):
                yield from (row["question"], row["answer"])

    def lessons(self) -> list[tuple[str, str, str]]:
        return [(row["question"], row["answer"], row["id"]) for row in _rows(self.world, self.workbook, "base")]

    def rows(self, split: str) -> list[dict[str, Any]]:
        """Problems of a split, see `Abacus.rows`."""
        return Abacus(self.world, self.workbook).rows(split)


@lru_cache(maxsize=8)
def _rows(seed: int, workbook: Workbook, split: str) -> list[dict[str, Any]]:
    return Abacus(seed, workbook).rows(split)
