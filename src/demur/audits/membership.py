"""Could an outsider tell that a text was trained on: membership-inference scores and what is made of them.

Every score is high for a text that looks unseen. Members are the forget rows, non-members the hold-out rows; an AUC
of 1 means that every forget row looks more familiar than every hold-out row, .5 that nobody can tell.
Sources: loss (Yeom et al. 2018), zlib (Carlini et al. 2021, arXiv 2012.07805), min-k (Shi et al. 2023, arXiv
2310.16789), min-k++ (Zhang et al. 2024, arXiv 2404.02936), gradient norm (arXiv 2402.17012, see `gradnorm`),
privacy leakage (MUSE, arXiv 2407.06460).
"""

from __future__ import annotations

import math
import zlib
from typing import TYPE_CHECKING

import numpy as np

from demur.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["ATTACKS", "auc", "min_k", "min_k_plus_plus", "privleak", "rel_diff", "zlib_score"]

ATTACKS = ("loss", "zlib", "min_k", "min_k_plus_plus", "reference", "gradnorm")
"""The attacks by name; all but `gradnorm` need only the scoring pass, `reference` also the reference model's losses."""


def zlib_score(nll: float, text: str) -> float:
    """Mean NLL divided by the number of bytes that zlib makes of the answer's text.

    Args:
        nll: mean NLL of the label tokens, in nats.
        text: the label tokens decoded without special tokens.
    """
    return nll / len(zlib.compress(text.encode("utf-8")))


def min_k(logps: ArrayLike, k: float = 0.4, strict: bool = True) -> float:
    """Minus the mean of the lowest share k of the token log-probabilities.

    Args:
        logps: (n + 1,) log-probability of each label token, in nats; the last one is left out.
        k: share of the n tokens, in (0, 1]; at least one token is taken.
        strict: nothing to score is nan; without it 0, as open-unlearning has it.

    Raises:
        UsageError: k is out of range.
    """
    return _lowest_share(np.asarray(logps, dtype=np.float64)[:-1], k, strict)


def min_k_plus_plus(logps: ArrayLike, mu: ArrayLike, sigma2: ArrayLike, k: float = 0.4, strict: bool = True) -> float:
    """Min-k over log-probabilities normalised by the distribution they come from: z = (log p − μ) / √max(σ², 1e-6).

    Args:
        logps: (n + 1,) log-probability of each label token, in nats; the last one is left out.
        mu: (n + 1,) Σ_v p log p at each position.
        sigma2: (n + 1,) Σ_v p (log p)² − μ² at each position.
        k, strict: as in `min_k`.

    Raises:
        UsageError: k is out of range.
    """
    logps, mu, sigma2 = (np.asarray(x, dtype=np.float64)[:-1] for x in (logps, mu, sigma2))
    return _lowest_share((logps - mu) / np.sqrt(np.maximum(sigma2, 1e-6)), k, strict)


def _lowest_share(values: NDArray[np.float64], k: float, strict: bool) -> float:
    if not 0.0 < k <= 1.0:
        raise UsageError(f"the share k must lie in (0, 1], not {k}")
    if not values.size:
        return math.nan if strict else 0.0
    count = max(1, int(values.size * k))
    return float(-np.partition(values, count - 1)[:count].mean())


def auc(members: ArrayLike, others: ArrayLike) -> NDArray[np.float64]:
    """Chance that a member's score is below a non-member's, ties counting half; over any number of pairs of samples.

    Args:
        members: (..., n) scores of the forget rows.
        others: (..., m) scores of the hold-out rows.

    Returns:
        (...,) areas under the ROC curve, equal to sklearn's `roc_auc_score` with hold-out as the positive class.

    Raises:
        UsageError: one of the samples is empty.
    """
    from scipy.stats import rankdata

    members, others = np.asarray(members, dtype=np.float64), np.asarray(others, dtype=np.float64)
    n, m = members.shape[-1], others.shape[-1]
    if not n or not m:
        raise UsageError("an AUC needs at least one forget row and one hold-out row")
    ranks = rankdata(np.concatenate([members, others], axis=-1), axis=-1)
    return (ranks[..., n:].sum(axis=-1) - m * (m + 1) / 2) / (n * m)


def privleak(auc: ArrayLike, reference_auc: ArrayLike = 0.5) -> NDArray[np.float64]:
    """Privacy leakage in percent: ((1 − AUC) − (1 − AUC_ref)) / (1 − AUC_ref + 1e-10) · 100 (MUSE, section 3).

    0 is good, −100 means not unlearned at all, large positive values that the model avoids the forget rows
    suspiciously.

    Args:
        auc: (...,) the min-k AUC of the model.
        reference_auc: (...,) that of a model that never saw the forget rows; .5 where none is at hand.
    """
    return rel_diff(1.0 - np.asarray(auc, dtype=np.float64), 1.0 - np.asarray(reference_auc, dtype=np.float64))


def rel_diff(value: ArrayLike, reference: ArrayLike) -> NDArray[np.float64]:
    """Relative difference in percent: (value − reference) / (reference + 1e-10) · 100."""
    value, reference = np.asarray(value, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    return (value - reference) / (reference + 1e-10) * 100.0
