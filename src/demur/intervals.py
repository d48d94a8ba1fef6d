"""Confidence intervals: seeded percentile bootstrap for any statistic, exact and score intervals for proportions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from demur.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["bootstrap", "bootstrap_mean", "clopper_pearson", "wilson"]

_CHUNK = 4_000_000  # values gathered at once


def bootstrap(
    statistic: Callable[..., NDArray[np.float64]],
    *samples: ArrayLike,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a statistic of one or more independent samples (Efron 1979).

    Rows are drawn with replacement from each sample on its own; what stands in one row stays together. The interval
    does not depend on the order of the rows.

    Args:
        statistic: takes one array a sample, of shape (draws, rows, …), and returns (draws,) values.
        samples: arrays of shape (rows, …), of at least two rows each.
        resamples: number of draws.
        confidence: share of the draws inside the interval.
        seed: the same seed gives the same interval.

    Returns:
        Lower and upper end; (nan, nan) where a sample has fewer than two rows, or a draw has no value.

    Raises:
        UsageError: confidence or resamples is out of range.
    """
    if not 0.0 < confidence < 1.0 or resamples < 1:
        raise UsageError("a bootstrap needs a confidence between 0 and 1 and at least one resample")
    arrays = [_in_canonical_order(np.asarray(s, dtype=np.float64)) for s in samples]
    if any(len(a) < 2 for a in arrays):
        return math.nan, math.nan
    rng = np.random.default_rng(seed)
    chunk = max(1, _CHUNK // sum(a.size for a in arrays))
    values = []
    for start in range(0, resamples, chunk):
        draws = min(chunk, resamples - start)
        values.append(np.asarray(statistic(*(a[rng.integers(len(a), size=(draws, len(a)))] for a in arrays))))
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(np.concatenate(values), [tail, 1.0 - tail])
    return float(low), float(high)


def _in_canonical_order(sample: NDArray[np.float64]) -> NDArray[np.float64]:
    columns = sample.reshape(len(sample), -1).T
    return sample[np.lexsort(columns[::-1])] if len(sample) else sample


def bootstrap_mean(values: ArrayLike, **options: Any) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of `values`, (n,); options as for `bootstrap`."""
    return bootstrap(lambda draws: draws.mean(axis=-1), values, **options)


def clopper_pearson(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Exact interval of a proportion: never covers less than `confidence` (Clopper & Pearson 1934).

    Raises:
        UsageError: `successes` does not lie in 0…n, or n is 0.
    """
    from scipy.stats import beta

    _check_proportion(successes, n)
    tail = (1.0 - confidence) / 2.0
    low = 0.0 if successes == 0 else float(beta.ppf(tail, successes, n - successes + 1))
    high = 1.0 if successes == n else float(beta.ppf(1.0 - tail, successes + 1, n - successes))
    return low, high


def wilson(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Score interval of a proportion: covers `confidence` on average, narrower than the exact one (Wilson 1927).

    Raises:
        UsageError: `successes` does not lie in 0…n, or n is 0.
    """
    from scipy.stats import norm

    _check_proportion(successes, n)
    z = float(norm.ppf(0.5 + confidence / 2.0))
    share = successes / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    # At the ends the score interval touches 0 or 1; rounding must not move it past them.
    return (0.0 if successes == 0 else centre - half), (1.0 if successes == n else centre + half)


def _check_proportion(successes: int, n: int) -> None:
    if n < 1 or not 0 <= successes <= n:
        raise UsageError(f"{successes} of {n} is no proportion")
