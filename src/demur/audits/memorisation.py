"""How much of an answer a model still holds: probability, exact memorisation, extraction strength.

Every function takes one sample's values over all its label tokens, the end-of-text token last, in the order of the
text. Probability counts that last token; the token-wise scores leave it out, whatever it is.
Sources: TOFU (Maini et al. 2024, arXiv 2401.06121), exact memorisation and extraction strength as used by
OpenUnlearning (Dorna et al. 2025, arXiv 2506.12618).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["exact_memorization", "extraction_strength", "mean_nll", "normalised_probability", "probability"]


def mean_nll(logps: ArrayLike) -> float:
    """Mean negative log-likelihood of the label tokens.

    Args:
        logps: (n,) log-probability of each label token, in nats, the end-of-text token included.

    Returns:
        Nats a token, ≥ 0; nan where there is no label token.
    """
    logps = np.asarray(logps, dtype=np.float64)
    return float(-logps.mean()) if logps.size else math.nan


def probability(logps: ArrayLike) -> float:
    """Length-normalised probability of an answer: exp(mean log p) (TOFU, section 2.2.1).

    Args:
        logps: (n,) log-probability of each label token, in nats, the end-of-text token included.

    Returns:
        A number in [0, 1]; nan where there is no label token.
    """
    return math.exp(-mean_nll(logps))


def normalised_probability(true: float, false: ArrayLike) -> float:
    """Share of an answer's probability among all the options: P / (P + Σ_j P_j + 1e-10).

    Args:
        true: length-normalised probability of the right answer.
        false: (k,) those of the wrong answers.
    """
    return float(true / (true + np.sum(np.asarray(false, dtype=np.float64)) + 1e-10))


def exact_memorization(hits: ArrayLike) -> float:
    """Share of the label tokens, the last left out, that the model would have chosen itself, given those before.

    Args:
        hits: (n,) whether the most likely token is the label.

    Returns:
        A number in [0, 1]; nan where nothing but the last token exists.
    """
    kept = np.asarray(hits, dtype=bool)[:-1]
    return float(kept.mean()) if kept.size else math.nan


def extraction_strength(hits: ArrayLike, strict: bool = True) -> float:
    """Share of an answer that the model completes without an error when given the rest: 1 − k / n.

    k is the shortest prefix after which the most likely token is right up to the end. The prefix is teacher-forced:
    this is no free generation.

    Args:
        hits: (n + 1,) whether the most likely token is the label; the last one is left out.
        strict: a wrong last token means 0, and nothing to score is nan. Without it the value is open-unlearning's:
            1 / n where even the last token is wrong, and 0 where there is nothing to score.

    Returns:
        A number in [0, 1].
    """
    kept = np.asarray(hits, dtype=bool)[:-1]
    if not kept.size:
        return math.nan if strict else 0.0
    wrong = np.flatnonzero(~kept)
    k = int(wrong[-1]) + 1 if wrong.size else 0
    if not strict:
        k = min(k, kept.size - 1)
    return 1.0 - k / kept.size
