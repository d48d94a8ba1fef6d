"""Edit distance against the textbook recursion."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from demur.probes import preference_edit_distance, token_edit_distances
from tiny import tiny_lm

SEQUENCES = st.lists(st.integers(0, 3), max_size=7)


def textbook(one: list[int], other: list[int]) -> int:
    @functools.cache
    def distance(i: int, j: int) -> int:
        if not (i and j):
            return i + j
        change = distance(i - 1, j - 1) + (one[i - 1] != other[j - 1])
        return min(change, distance(i - 1, j) + 1, distance(i, j - 1) + 1)

    return distance(len(one), len(other))


@given(st.lists(st.tuples(SEQUENCES, SEQUENCES), max_size=6))
def test_equals_the_textbook_whoever_shares_the_batch(pairs: list[tuple[list[int], list[int]]]) -> None:
    found = token_edit_distances([a for a, _ in pairs], [b for _, b in pairs])
    assert found.tolist() == [textbook(a, b) for a, b in pairs]


def test_batches_join_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = [[1] * i for i in range(9)], [[2] * (9 - i) for i in range(9)]
    expected = token_edit_distances(first, second)
    monkeypatch.setattr("demur.probes.edit_distance._TOGETHER", 2)
    assert np.array_equal(token_edit_distances(first, second), expected)


def test_a_preference_pair_is_divided_by_its_longer_answer() -> None:
    lm = tiny_lm()
    rows = [
        {"prompt": "who?", "chosen": "oda marsh", "rejected": "oda marsh"},
        {"prompt": "who?", "chosen": "0123", "rejected": "jxzvyjxz"},
    ]
    found = preference_edit_distance(lm, Dataset.from_list(rows))
    assert found[0] == 0 and 0.8 <= found[1] <= 1
