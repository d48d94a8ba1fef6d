"""Is the unlearned model distinguishable from one that never saw the data: TOFU's forget quality.

The p-value of a two-sample Kolmogorov–Smirnov test between the truth ratios of the model and of a reference (gold)
model on the same forget rows (TOFU, arXiv 2401.06121, section 2.2.2). It is the same for R and 1/R.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from demur.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["ForgetQuality", "forget_quality_test", "ks_distance", "ks_distance_interval", "ks_log10_p"]

_EXACT_UP_TO = 10_000  # scipy's own limit for the exact test; larger samples take the asymptotic distribution
_TRUSTED_P = 1e-250  # below this the p-value itself is near the end of float64


@dataclass(frozen=True)
class ForgetQuality:
    """A two-sample Kolmogorov–Smirnov test.

    Attributes:
        p: the p-value; high means that the two models cannot be told apart. 0.0 where float64 cannot hold it.
        log10_p: its decimal logarithm, which does not underflow.
        distance: D, the largest gap between the two distribution functions, in [0, 1].
    """

    p: float
    log10_p: float
    distance: float


def forget_quality_test(ratios: ArrayLike, reference: ArrayLike) -> ForgetQuality:
    """Compare a model's truth ratios with the reference model's.

    Args:
        ratios: (n,) truth ratios of the model on the forget rows.
        reference: (m,) those of the reference model.

    Raises:
        UsageError: one of them is empty or holds nan.
    """
    from scipy.stats import ks_2samp

    ratios, reference = np.asarray(ratios, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    for name, values in (("model's", ratios), ("reference's", reference)):
        if not values.size or np.isnan(values).any():
            raise UsageError(f"forget quality needs truth ratios, but the {name} are empty or hold nan")
    with warnings.catch_warnings():
        # Where rounding takes an exact p past 1, scipy says so and gives the asymptotic one, which is as good as 1.
        warnings.simplefilter("ignore", RuntimeWarning)
        test = ks_2samp(ratios, reference)
    p, distance = float(test.pvalue), float(test.statistic)
    log10_p = math.log10(p) if p > _TRUSTED_P else ks_log10_p(distance, ratios.size, reference.size)
    return ForgetQuality(p, log10_p, distance)


def ks_distance(first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    """Largest gap between two empirical distribution functions, over any number of pairs of samples at once.

    Args:
        first: (..., n) samples.
        second: (..., m) samples.

    Returns:
        (...,) distances D in [0, 1].
    """
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    n, m = first.shape[-1], second.shape[-1]
    values = np.concatenate([first, second], axis=-1)
    order = np.argsort(values, axis=-1, kind="stable")
    values = np.take_along_axis(values, order, axis=-1)
    gap = np.abs(np.cumsum(np.where(order < n, 1.0 / n, -1.0 / m), axis=-1))
    # Within a run of equal values the distribution functions have not both stepped yet.
    settled = np.ones(values.shape, dtype=bool)
    settled[..., :-1] = values[..., 1:] != values[..., :-1]
    return np.where(settled, gap, 0.0).max(axis=-1)


def ks_log10_p(distance: float, n: int, m: int) -> float:
    """Decimal logarithm of the two-sided p-value of D for samples of n and m values, without underflow.

    Exact up to 10,000 values a sample: the chance that a uniformly random lattice path from (0, 0) to (n, m) leaves
    the band |i/n − j/m| < D. Larger samples use the limit 2·exp(−2·D²·nm/(n + m)).
    """
    if max(n, m) > _EXACT_UP_TO:
        return min(0.0, (math.log(2.0) - 2.0 * distance**2 * n * m / (n + m)) / math.log(10))
    whole = math.lcm(n, m)
    edge = round(distance * whole)
    if edge == 0:
        return 0.0
    step_i, step_j = whole // n, whole // m
    with np.errstate(divide="ignore"):
        logs = np.log(np.arange(n + m + 1, dtype=np.float64))
    row = np.full(n + 1, -np.inf)  # log-chance of having left the band, by i, on the anti-diagonal i + j = t
    for t in range(1, n + m + 1):
        low, high = max(0, t - m), min(n, t)
        i = np.arange(low, high + 1)
        # The last step of a uniform path to (i, j) came from (i-1, j) with chance i/t, from (i, j-1) with chance j/t.
        before = np.concatenate([[-np.inf], row[:-1]])[low : high + 1]
        reached = np.logaddexp(before + logs[i], row[low : high + 1] + logs[t - i]) - logs[t]
        outside = np.abs(i * step_i - (t - i) * step_j) >= edge
        row = np.full(n + 1, -np.inf)
        row[low : high + 1] = np.where(outside, 0.0, reached)
    return min(0.0, float(row[n]) / math.log(10))


def ks_distance_interval(distance: float, n: int, m: int, confidence: float = 0.95) -> tuple[float, float]:
    """An interval for the distance between the two true distributions that holds for every sample size.

    Each empirical distribution function lies within √(ln(2/α′)/2n) of the true one (Dvoretzky–Kiefer–Wolfowitz with
    Massart's constant); the error is shared equally by the two, so the interval is on the wide side.
    """
    share = (1.0 - confidence) / 2.0
    slack = math.sqrt(math.log(2.0 / share) / (2 * n)) + math.sqrt(math.log(2.0 / share) / (2 * m))
    return max(0.0, distance - slack), min(1.0, distance + slack)
