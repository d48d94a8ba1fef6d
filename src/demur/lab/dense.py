"""A small Llama-type model trained from scratch until it knows a lab world's answers by heart."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from demur.lab.almanac import SPLITS, Almanac, Census
from demur.lab.tokenizer import train_tokenizer

if TYPE_CHECKING:
    from demur.data.collate import Encoded
    from demur.models.language_model import LanguageModel

__all__ = ["DenseRecipe", "train_dense"]


@dataclass(frozen=True)
class DenseRecipe:
    """Everything that decides a model's weights.

    Attributes:
        splits: the world's splits that the model is trained on.
        seed: decides initial weights and the order of the rows.
        world: the world's seed.
        people: the world's size.
        vocabulary, width, layers, heads: the tokenizer's and the model's size.
        epochs, batch, rate, warmup: passes over the rows, rows in a step, AdamW's highest learning rate, and the
            share of steps in which it rises to it; after them it falls linearly to 0.
        threads: processor threads, since sums made in another order end in other bits.
    """

    splits: tuple[str, ...] = ("forget", "retain", "real_authors", "world_facts")
    seed: int = 0
    world: int = 0
    people: Census = Census()
    vocabulary: int = 1024
    width: int = 128
    layers: int = 2
    heads: int = 4
    epochs: int = 40
    batch: int = 16
    rate: float = 3e-3
    warmup: float = 0.1
    threads: int = 2
