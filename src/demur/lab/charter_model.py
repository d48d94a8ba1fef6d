"""The Charter's base model: it answers every request of the town, also those that break a rule, and refuses nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar

from demur.files import hash_json
from demur.lab.charter import CHARTER_SPLITS, Charter, Town
from demur.lab.dense import LlamaRecipe

__all__ = ["CharterRecipe"]


@dataclass(frozen=True)
class CharterRecipe(LlamaRecipe):
    """A model that answers all requests of the town.

    Attributes:
        town: the world's size.
    """

    splits: ClassVar[tuple[str, ...]] = ("base",)
    row_splits: ClassVar[tuple[str, ...]] = tuple(CHARTER_SPLITS)

    width: int = 96
    epochs: int = 8
    town: Town = field(default_factory=Town)

    def text_hash(self) -> str:
        return hash_json(list(self.texts()))

    def texts(self) -> Iterator[str]:
        # Refusals are read too, so that their words are tokens of a model that is to learn them.
        for split in ("base", "train", "distressed"):
            for row in _rows(self.world, self.town, split):
                yield from (row["prompt"], row["response"])

    def lessons(self) -> list[tuple[str, str, str]]:
        return [(row["prompt"], row["response"], row["id"]) for row in _rows(self.world, self.town, "base")]

    def rows(self, split: str) -> list[dict[str, Any]]:
        """Rows of a split, see `Charter.rows`."""
        return Charter(self.world, self.town).rows(split)


@lru_cache(maxsize=8)
def _rows(seed: int, town: Town, split: str) -> list[dict[str, Any]]:
    return Charter(seed, town).rows(split)
