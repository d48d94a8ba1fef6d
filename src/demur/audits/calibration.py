"""How well confidence tells right answers from wrong ones: ranking, calibration, and what answering less would save.

All functions take one truth value and one confidence an answer. Answers of equal confidence are never told apart by
their order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from demur.errors import UsageError
from demur.intervals import wilson

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = [
    "ReliabilityBin",
    "aurc",
    "average_precision",
    "expected_calibration_error",
    "reliability_bins",
    "risk_coverage",
    "sequence_confidence",
]


@dataclass(frozen=True)
class ReliabilityBin:
    """The answers whose confidence lies in one bin.

    Attributes:
        low, high: ends of the bin; the upper one belongs to the last bin only.
        n: answers in it.
        confidence: their mean confidence.
        accuracy: share of them that is right.
        accuracy_low, accuracy_high: its 95 % score interval.
    """

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float
    accuracy_low: float
    accuracy_high: float


def sequence_confidence(probabilities: ArrayLike) -> float:
    """Geometric mean of the probabilities of an answer's tokens.

    Raises:
        UsageError: the answer has no tokens.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    if p.size == 0:
        raise UsageError("an answer without tokens has no confidence")
    with np.errstate(divide="ignore"):
        return float(np.exp(np.log(p).mean()))


def average_precision(correct: ArrayLike, confidence: ArrayLike) -> NDArray[np.float64]:
    """Average precision Σ_k (R_k - R_{k-1}) P_k over the distinct thresholds, as scikit-learn defines it.

    Many draws at once, as a bootstrap needs it, which scikit-learn does not offer.

    Args:
        correct: (…, n) 1 where the answer is right, else 0.
        confidence: the same shape; only its order counts.

    Returns:
        (…) values in [0, 1]; 0 where nothing is right.

    Raises:
        UsageError: the shapes differ or there is no answer.
    """
    correct, confidence = _checked(correct, confidence)
    hits, _, ends = _ranked(correct, confidence)
    places = np.arange(1, correct.shape[-1] + 1)
    precision = np.take_along_axis(hits.cumsum(-1) / places, ends, -1)
    total = hits.sum(-1)
    return np.asarray((hits * precision).sum(-1) / np.maximum(total, 1))


def reliability_bins(correct: ArrayLike, confidence: ArrayLike, bins: int = 10) -> list[ReliabilityBin]:
    """Accuracy beside mean confidence, in bins of equal width over [0, 1]; empty bins are left out.

    Args:
        correct: (n,) 1 where the answer is right, else 0.
        confidence: (n,) in [0, 1].
        bins: how many.

    Raises:
        UsageError: the shapes differ, there is no answer, a confidence is outside [0, 1], or bins is below 1.
    """
    correct, confidence = _checked(correct, confidence)
    place = _bin(confidence, bins)
    out = []
    for number in np.unique(place):
        inside = place == number
        n, hits = int(inside.sum()), int(correct[inside].sum())
        ends = number / bins, (number + 1) / bins
        out.append(ReliabilityBin(*ends, n, float(confidence[inside].mean()), hits / n, *wilson(hits, n)))
    return out


def expected_calibration_error(correct: ArrayLike, confidence: ArrayLike, bins: int = 10) -> NDArray[np.float64]:
    """Σ_b (n_b / n) |accuracy_b - confidence_b| over bins of equal width (Guo et al. 2017, arXiv 1706.04599, eq. 3).

    Args:
        correct: (…, n) 1 where the answer is right, else 0.
        confidence: the same shape, in [0, 1].
        bins: how many.

    Raises:
        UsageError: as for `reliability_bins`.
    """
    correct, confidence = _checked(correct, confidence)
    place, excess = _bin(confidence, bins), correct - confidence
    gaps = [np.abs((excess * (place == number)).sum(-1)) for number in range(bins)]
    return np.asarray(np.sum(gaps, axis=0) / correct.shape[-1])


def risk_coverage(correct: ArrayLike, confidence: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Share of wrong answers among the k most confident, for k = 1 … n (El-Yaniv & Wiener 2010).

    Among answers of equal confidence the errors are spread evenly, which is what any order gives on average.

    Args:
        correct: (…, n) 1 where the answer is right, else 0.
        confidence: the same shape; only its order counts.

    Returns:
        coverage (n,), k / n; and risk (…, n).

    Raises:
        UsageError: the shapes differ or there is no answer.
    """
    correct, confidence = _checked(correct, confidence)
    hits, starts, ends = _ranked(correct, confidence)
    places = np.arange(1, correct.shape[-1] + 1)
    wrong = (1 - hits).cumsum(-1)
    before = np.take_along_axis(wrong - (1 - hits), starts, -1)
    inside = np.take_along_axis(wrong, ends, -1) - before
    risk = (before + inside * (places - starts) / (ends - starts + 1)) / places
    return places / len(places), risk


def aurc(correct: ArrayLike, confidence: ArrayLike) -> NDArray[np.float64]:
    """Area under the risk-coverage curve: the mean risk over all coverages (Geifman et al. 2019, arXiv 1805.08206).

    A confidence that says nothing gives the share of wrong answers; arguments as for `risk_coverage`.
    """
    return np.asarray(risk_coverage(correct, confidence)[1].mean(-1))


def _checked(correct: ArrayLike, confidence: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    right, sure = np.asarray(correct, dtype=np.float64), np.asarray(confidence, dtype=np.float64)
    if right.shape != sure.shape:
        raise UsageError(f"{right.shape} truth values but {sure.shape} confidences")
    if right.ndim == 0 or right.shape[-1] == 0:
        raise UsageError("there are no answers to measure confidence on")
    return right, sure


def _bin(confidence: NDArray[np.float64], bins: int) -> NDArray[np.int64]:
    if bins < 1:
        raise UsageError(f"bins must be at least 1, not {bins}")
    if ((confidence < 0) | (confidence > 1)).any():
        raise UsageError("confidences must lie in [0, 1]")
    return np.minimum((confidence * bins).astype(np.int64), bins - 1)


def _ranked(
    correct: NDArray[np.float64], confidence: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Truth values from most to least confident; for each the first and the last place with the same confidence."""
    order = np.argsort(-confidence, axis=-1, kind="stable")
    ranked = np.take_along_axis(confidence, order, -1)
    places = np.arange(confidence.shape[-1])
    border = ranked[..., 1:] != ranked[..., :-1]
    end = np.ones_like(ranked[..., :1], dtype=bool)
    starts = np.maximum.accumulate(np.where(np.concatenate([end, border], -1), places, 0), axis=-1)
    ends = np.where(np.concatenate([border, end], -1), places, len(places))
    last = np.minimum.accumulate(ends[..., ::-1], axis=-1)[..., ::-1]
    return np.take_along_axis(correct, order, -1), starts, last
