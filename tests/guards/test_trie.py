from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demur.guards import PhraseTrie

PHRASES = [[5, 6, 7], [6, 9]]


@pytest.mark.parametrize(
    ("generated", "ratio"),
    [([1, 5, 6], 2 / 3), ([1, 5, 6, 7], 1.0), ([5, 6, 9], 1.0), ([5, 8], 0.0), ([6], 1 / 2), ([], 0.0)],
    ids=str,
)
def test_match_ratio_of_the_worked_example(generated: list[int], ratio: float):
    trie = PhraseTrie(PHRASES)
    assert trie.ratio(trie.walk(generated)) == pytest.approx(ratio)


def test_depth_is_divided_by_the_length_of_the_phrase_and_not_by_itself():
    trie = PhraseTrie([list(range(10))])
    assert trie.ratio(trie.walk([0])) == pytest.approx(0.1)
    assert trie.blocked(trie.walk([0]), 1.0) == []


def test_an_empty_trie_blocks_nothing():
    trie = PhraseTrie[int]([[]])
    assert len(trie) == 1 and trie.walk([1, 2]) == 0 and trie.blocked(0, 0.1) == []


symbols = st.integers(0, 3)
phrase_sets = st.lists(st.lists(symbols, min_size=1, max_size=4), min_size=1, max_size=6)


def brute_ratio(phrases: list[list[int]], generated: list[int]) -> float:
    """Over all suffixes that begin a phrase: their length over the phrase's."""
    return max(
        (
            len(suffix) / len(phrase)
            for start in range(len(generated))
            for phrase in phrases
            if (suffix := generated[start:]) == phrase[: len(suffix)]
        ),
        default=0.0,
    )


@given(phrase_sets, st.lists(symbols, max_size=8))
def test_state_ratio_and_blocked_symbols_are_those_of_brute_force(phrases: list[list[int]], generated: list[int]):
    trie = PhraseTrie(phrases)
    state = trie.walk(generated)
    assert trie.ratio(state) == pytest.approx(brute_ratio(phrases, generated))
    ended = any(generated[-len(p) :] == p for p in phrases if len(generated) >= len(p))
    assert trie.complete(state) == ended
    for threshold in (0.4, 0.75, 1.0, 1.01):
        expected = {s for s in range(4) if brute_ratio(phrases, [*generated, s]) >= threshold}
        assert set(trie.blocked(state, threshold)) == expected


@given(phrase_sets, st.lists(symbols, max_size=6))
def test_what_is_missing_to_a_phrase_completes_it(phrases: list[list[int]], generated: list[int]):
    trie = PhraseTrie(phrases)
    for node in trie.suffixes(trie.walk(generated)):
        for ending in trie.endings(node):
            assert trie.complete(trie.walk(ending, node))
