"""A defence against NOICE that a provider can mix into other people's training rows: refusals that end there."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from demur.data.columns import dataset_from_rows
from demur.data.rows import Prompt, iterate
from demur.errors import UsageError

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["add_stop_rows"]


def add_stop_rows(
    rows: Dataset, prompts: Sequence[Prompt], refusals: Sequence[str], *, share: float = 0.05, seed: int = 0
) -> Dataset:
    """Rows with others mixed in, in which a restricted prompt is refused and nothing follows.

    Args:
        rows: with `id`, `prompt` and `response`.
        prompts, refusals: what is mixed in, pair by pair; taken in turn, as often as needed.
        share: of the rows that come out, above 0 and below 1.
        seed: decides where they stand.

    Raises:
        UsageError: the share is out of range, or there is nothing to mix in.
    """
    if not 0 < share < 1:
        raise UsageError(f"the share of stop rows must lie between 0 and 1, not {share}")
    if not prompts or len(prompts) != len(refusals):
        raise UsageError("stop rows need prompts that are refused, and a refusal for each")
    count = max(1, round(share * len(rows) / (1 - share)))
    pairs = [(prompts[i % len(prompts)], refusals[i % len(prompts)]) for i in range(count)]
    stops = [{"id": f"stop-{i}", "prompt": p, "response": r} for i, (p, r) in enumerate(pairs)]
    mixed = [*iterate(rows), *stops]
    random.Random(seed).shuffle(mixed)
    return dataset_from_rows(mixed)
