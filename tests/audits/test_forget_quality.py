from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import gammaln
from scipy.stats import ks_2samp

from demur.audits.forget_quality import (
    forget_quality_test,
    ks_distance,
    ks_distance_interval,
    ks_log10_p,
)
from demur.errors import UsageError

few = st.lists(st.integers(0, 12).map(float), min_size=1, max_size=25)


def test_known_test() -> None:
    quality = forget_quality_test((0.5, 0.6, 0.7, 0.8, 0.9, 1), (0.65, 0.75, 0.85, 0.95, 1.05))
    assert quality.distance == pytest.approx(1 / 3)
    assert quality.p == pytest.approx(0.818182, abs=1e-6)


@given(few, few)
@pytest.mark.filterwarnings("ignore:ks_2samp. Exact calculation unsuccessful")
def test_everything_equals_scipy_ties_included(first: list[float], second: list[float]) -> None:
    expected = ks_2samp(first, second)
    quality = forget_quality_test(first, second)
    assert quality.p == expected.pvalue
    assert ks_distance(first, second) == pytest.approx(expected.statistic)
    assert ks_log10_p(expected.statistic, len(first), len(second)) == pytest.approx(
        math.log10(expected.pvalue), abs=1e-4
    )


def test_ratios_and_their_inverses_give_the_same_test() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.lognormal(size=60), rng.lognormal(0.4, size=55)
    assert forget_quality_test(1 / first, 1 / second).p == pytest.approx(forget_quality_test(first, second).p, rel=1e-9)


def test_distances_of_many_pairs_at_once_equal_one_by_one() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.integers(0, 9, (5, 30)).astype(float), rng.integers(2, 11, (5, 20)).astype(float)
    one_by_one = [ks_2samp(a, b).statistic for a, b in zip(first, second, strict=True)]
    assert ks_distance(first, second) == pytest.approx(one_by_one)


@pytest.mark.parametrize(("n", "m"), [(400, 400), (2000, 1500), (5000, 5000)])
def test_the_logarithm_does_not_underflow_when_nothing_overlaps(n: int, m: int) -> None:
    # Two of all C(n + m, n) orders keep the samples apart.
    expected = (math.log(2) + gammaln(n + 1) + gammaln(m + 1) - gammaln(n + m + 1)) / math.log(10)
    quality = forget_quality_test(np.arange(n), np.arange(m) + n)
    assert quality.log10_p == pytest.approx(expected, rel=1e-9)
    assert quality.distance == 1
    assert (quality.p == 0) == (expected < -308)


def test_beyond_the_exact_test_the_logarithm_follows_the_limit() -> None:
    n = 12_000
    p = ks_2samp(np.arange(n), np.arange(n) + 500).pvalue
    assert ks_log10_p(500 / n, n, n) == pytest.approx(math.log10(p), rel=2e-3)


def test_the_interval_of_the_distance_covers_the_true_distance() -> None:
    rng = np.random.default_rng(2)
    true = 0.19741  # between normals half a standard deviation apart
    for _ in range(50):
        distance = float(ks_distance(rng.normal(size=200), rng.normal(0.5, size=200)))
        low, high = ks_distance_interval(distance, 200, 200)
        assert 0 <= low <= true <= high <= 1


def test_missing_values_are_refused() -> None:
    with pytest.raises(UsageError, match="reference's are empty or hold nan"):
        forget_quality_test([1.0], [float("nan")])
    with pytest.raises(UsageError, match="model's are empty"):
        forget_quality_test([], [1.0])
