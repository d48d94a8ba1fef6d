"""How many tokens apart two answers are: the baseline that looks at text alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from demur.probes.ches import encode_pairs

if TYPE_CHECKING:
    from datasets import Dataset
    from numpy.typing import NDArray

    from demur.models import LanguageModel

__all__ = ["preference_edit_distance", "token_edit_distances"]

_TOGETHER = 256  # pairs that are compared at a time


def token_edit_distances(first: Sequence[Sequence[int]], second: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    """Levenshtein distance of each sequence to its partner: insertions, deletions and substitutions of tokens.

    Args:
        first, second: as many sequences of token ids each.

    Returns:
        (pairs,) distances.
    """
    parts = [
        _distances(first[start : start + _TOGETHER], second[start : start + _TOGETHER])
        for start in range(0, len(first), _TOGETHER)
    ]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)


def _distances(first: Sequence[Sequence[int]], second: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    left, right = _padded(first, -1), _padded(second, -2)
    heights, widths = (np.array([len(s) for s in side]) for side in (first, second))
    pairs = np.arange(len(first))
    steps = np.arange(right.shape[1] + 1)
    row = np.tile(steps, (len(first), 1))
    out = np.where(heights == 0, widths, 0)
    for i in range(left.shape[1]):
        changed = np.minimum(row[:, :-1] + (right != left[:, i, None]), row[:, 1:] + 1)
        row = np.concatenate([np.full((len(first), 1), i + 1), changed], axis=1)
        # An insertion costs 1 a step to the right: along a row, the least of all that stand further left.
        row = np.minimum.accumulate(row - steps, axis=1) + steps
        out = np.where(heights == i + 1, row[pairs, widths], out)
    return out


def _padded(sequences: Sequence[Sequence[int]], filler: int) -> NDArray[np.int64]:
    out = np.full((len(sequences), max(map(len, sequences), default=0)), filler, dtype=np.int64)
    for row, sequence in zip(out, sequences, strict=True):
        row[: len(sequence)] = sequence
    return out


def preference_edit_distance(lm: LanguageModel, dataset: Dataset) -> NDArray[np.float64]:
    """Distance between chosen and rejected answers in tokens, divided by the longer one's length.

    Its negative is the baseline of the paper's comparison: alike answers stand high.

    Args:
        lm: gives tokenizer and template.
        dataset: columns `prompt`, `chosen` and `rejected`.

    Returns:
        (pairs,) distances in [0, 1], in the order of the rows.

    Raises:
        UsageError: as for `ches_scores`.
    """
    parts = []
    for start in range(0, len(dataset), _TOGETHER):
        encoded = encode_pairs(lm, dataset, start, start + _TOGETHER)
        won, lost = ([e.label_ids[:-1] for e in side] for side in (encoded[::2], encoded[1::2]))  # without end of text
        longer = [max(len(w), len(r)) for w, r in zip(won, lost, strict=True)]
        parts.append(token_edit_distances(won, lost) / np.array(longer))
    return np.concatenate(parts) if parts else np.zeros(0)
