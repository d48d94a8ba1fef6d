from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from audits.worked_example import ROWS
from demur.audits.membership import auc, min_k, min_k_plus_plus, privleak, rel_diff, zlib_score
from demur.errors import UsageError

FORGET, HOLDOUT = (0.10, 0.20, 0.30, 0.40), (0.25, 0.35, 0.45, 0.55, 0.65)
scores = st.lists(st.integers(0, 8).map(float), min_size=1, max_size=20)


@pytest.mark.parametrize(("row", "plain", "normalised"), [(0, 3.443322, 2.515522), (1, 3.906289, 4.099522)])
def test_worked_example(row: int, plain: float, normalised: float) -> None:
    stats = ROWS[row]
    assert min_k(stats.logps) == pytest.approx(plain, abs=1e-6)
    assert min_k_plus_plus(stats.logps, stats.mu, stats.sigma2) == pytest.approx(normalised, abs=1e-6)


@given(st.lists(st.floats(-9, 0), min_size=2, max_size=15), st.floats(0.05, 1))
def test_min_k_is_minus_the_mean_of_the_least_likely_tokens(logps: list[float], k: float) -> None:
    lowest = sorted(logps[:-1])[: max(1, math.floor((len(logps) - 1) * k))]
    assert min_k(logps, k) == pytest.approx(-sum(lowest) / len(lowest))


def test_a_flat_distribution_does_not_divide_by_zero() -> None:
    assert min_k_plus_plus([-2.0, 0.0], [-1.0, 0.0], [0.0, 0.0]) == pytest.approx(1 / math.sqrt(1e-6))


def test_nothing_to_score_is_nan_or_as_open_unlearning_has_it_zero() -> None:
    assert math.isnan(min_k([-1.0]))
    assert min_k([-1.0], strict=False) == 0
    assert min_k_plus_plus([], [], [], strict=False) == 0


@pytest.mark.parametrize("k", [0.0, 1.5])
def test_a_share_out_of_range_is_refused(k: float) -> None:
    with pytest.raises(UsageError, match="share k"):
        min_k([-1.0, -1.0], k)


@given(scores, scores)
def test_the_auc_equals_sklearn_ties_included(members: list[float], others: list[float]) -> None:
    labels = [0] * len(members) + [1] * len(others)
    assert auc(members, others) == pytest.approx(roc_auc_score(labels, members + others))


def test_the_auc_of_many_pairs_at_once_equals_one_by_one() -> None:
    rng = np.random.default_rng(0)
    members, others = rng.integers(0, 5, (4, 7)), rng.integers(0, 5, (4, 6))
    assert auc(members, others) == pytest.approx([auc(a, b) for a, b in zip(members, others, strict=True)])


def test_known_auc_and_leakage() -> None:
    assert auc(FORGET, HOLDOUT) == pytest.approx(0.85)
    assert privleak(0.85) == pytest.approx(-70.0)
    assert privleak(0.85, 0.6) == pytest.approx(-62.5)
    assert privleak(1.0) == pytest.approx(-100.0)
    assert rel_diff(0.85, 0.5) == pytest.approx(70.0)


def test_an_empty_side_is_refused() -> None:
    with pytest.raises(UsageError, match="at least one"):
        auc([], HOLDOUT)


def test_zlib_divides_by_the_compressed_length() -> None:
    assert zlib_score(96.0, "The author's full name is Hsiao Yun-Hwa.") == pytest.approx(2.0)
