"""ROUGE of an answer against the truth, with the values of the `rouge-score` package.

Tokens come from that package, Porter stems included; stems are remembered, and the longest common subsequence is
found with bit-parallel arithmetic (Hyyrö 2004) instead of a table, which makes an audit's ROUGE several times faster.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["RougeScores", "longest_common_subsequence", "rouge_scores"]


@dataclass(frozen=True)
class RougeScores:
    """ROUGE-1 and ROUGE-L of one answer, each in [0, 1]; recall is the share of the truth that the answer repeats."""

    rouge1_recall: float
    rougeL_recall: float
    rougeL_f1: float


@functools.lru_cache(maxsize=100_000)
def _stem(word: str) -> str:
    return str(_porter().stem(word))


@functools.cache
def _porter():  # type: ignore[no-untyped-def]
    from nltk.stem.porter import PorterStemmer

    return PorterStemmer()


class _RememberingStemmer:
    stem = staticmethod(_stem)


@functools.lru_cache(maxsize=20_000)
def _tokens(text: str, stem: bool) -> tuple[str, ...]:
    from rouge_score.tokenize import tokenize

    return tuple(tokenize(text, _RememberingStemmer if stem else None))


def longest_common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest sequence that both contain in order, not necessarily side by side."""
    places: dict[str, int] = {}
    for i, token in enumerate(first):
        places[token] = places.get(token, 0) | (1 << i)
    full = (1 << len(first)) - 1
    row = full
    for token in second:
        matches = row & places.get(token, 0)
        row = ((row + matches) | (row - matches)) & full
    return len(first) - row.bit_count()


def rouge_scores(truth: str, answer: str, stem: bool = True) -> RougeScores:
    """Compare an answer with the truth.

    Args:
        truth: the reference text.
        answer: what the model wrote.
        stem: compare Porter stems instead of words (TOFU does, the original MUSE code does not).

    Returns:
        Scores equal to `rouge_score.rouge_scorer.RougeScorer(["rouge1", "rougeL"], use_stemmer=stem)`; all 0 where
        either text has no word.
    """
    reference, candidate = _tokens(truth, stem), _tokens(answer, stem)
    if not reference or not candidate:
        return RougeScores(0.0, 0.0, 0.0)
    shared = (Counter(reference) & Counter(candidate)).total()
    common = longest_common_subsequence(reference, candidate)
    recall, precision = common / len(reference), common / len(candidate)
    f1 = 2 * precision * recall / (precision + recall) if common else 0.0
    return RougeScores(shared / len(reference), recall, f1)
