from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from demur.audits.membership import auc
from demur.errors import UsageError
from demur.intervals import bootstrap, bootstrap_mean, clopper_pearson, wilson


def _mean(draws: np.ndarray) -> np.ndarray:
    return draws.mean(axis=-1)


def test_a_seed_gives_one_interval_whatever_the_order_of_the_rows() -> None:
    values = np.random.default_rng(0).normal(size=50)
    first = bootstrap_mean(values, seed=3)
    assert bootstrap_mean(values[::-1], seed=3) == first
    assert bootstrap_mean(values, seed=4) != first


def test_the_interval_of_a_mean_approaches_the_normal_one() -> None:
    values = np.random.default_rng(1).normal(size=400)
    low, high = bootstrap_mean(values, resamples=4000)
    half = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)


def test_intervals_of_a_mean_cover_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    intervals = [bootstrap_mean(rng.random(60), resamples=400, seed=i) for i in range(300)]
    assert 0.91 <= np.mean([low <= 0.5 <= high for low, high in intervals]) <= 0.98


def test_what_stands_in_one_row_stays_together() -> None:
    column = np.random.default_rng(3).normal(size=40)
    low, high = bootstrap(lambda rows: (rows[..., 0] - rows[..., 1]).mean(axis=-1), np.stack([column, column], axis=1))
    assert low == high == 0


def test_independent_samples_are_drawn_apart() -> None:
    rng = np.random.default_rng(4)
    low, high = bootstrap(auc, rng.normal(size=80), rng.normal(1, size=70))
    assert low < 0.76 < high
    assert high - low < 0.25


def test_large_samples_are_drawn_in_parts_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(5).normal(size=100)
    whole = bootstrap_mean(values, resamples=200)
    monkeypatch.setattr("demur.intervals._CHUNK", 700)
    assert bootstrap_mean(values, resamples=200) == pytest.approx(whole)


def test_one_row_has_no_interval() -> None:
    assert all(math.isnan(end) for end in bootstrap_mean([0.5]))


@pytest.mark.parametrize("options", [{"confidence": 1.0}, {"resamples": 0}])
def test_options_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="confidence"):
        bootstrap(_mean, [1.0, 2.0], **options)  # type: ignore[arg-type]


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_proportions_equal_scipy(case: tuple[int, int]) -> None:
    test = binomtest(*case)
    for ours, method in ((clopper_pearson, "exact"), (wilson, "wilson")):
        expected = test.proportion_ci(0.95, method=method)
        assert ours(*case) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize("case", [(1, 0), (3, 2), (-1, 5)])
def test_what_is_no_proportion_is_refused(case: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match="no proportion"):
        wilson(*case)
