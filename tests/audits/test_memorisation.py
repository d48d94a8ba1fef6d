from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audits.worked_example import ROWS
from demur.audits.memorisation import (
    exact_memorization,
    extraction_strength,
    mean_nll,
    normalised_probability,
    probability,
)


@pytest.mark.parametrize(
    ("row", "loss", "share", "exact", "compat"), [(0, 1.623266, 0.197254, 1 / 3, 1 / 3), (1, 3.005570, 0.049511, 0, 1)]
)
def test_worked_example(row: int, loss: float, share: float, exact: float, compat: float) -> None:
    stats = ROWS[row]
    assert mean_nll(stats.logps) == pytest.approx(loss, abs=1e-6)
    assert probability(stats.logps) == pytest.approx(share, abs=1e-6)
    assert exact_memorization(stats.hits) == pytest.approx(exact)
    assert extraction_strength(stats.hits) == 0
    assert extraction_strength(stats.hits, strict=False) == pytest.approx(compat)


def _shortest_prefix(hits: list[bool]) -> float:
    kept = hits[:-1]
    for k in range(len(kept) + 1):
        if all(kept[k:]):
            return 1 - k / len(kept)
    raise AssertionError


@given(st.lists(st.booleans(), min_size=2, max_size=12))
def test_extraction_strength_is_the_shortest_prefix_after_which_all_is_right(hits: list[bool]) -> None:
    assert extraction_strength(hits) == pytest.approx(_shortest_prefix(hits))


@given(st.lists(st.booleans(), min_size=2, max_size=12))
def test_compat_extraction_strength_differs_only_where_the_last_kept_token_is_wrong(hits: list[bool]) -> None:
    compat = extraction_strength(hits, strict=False)
    assert compat == pytest.approx(extraction_strength(hits) if hits[-2] else 1 / (len(hits) - 1))


def test_the_last_token_counts_for_probability_only() -> None:
    assert exact_memorization([True, False]) == 1
    assert extraction_strength([True, True, False]) == 1
    assert probability([0.0, -2.0]) == pytest.approx(math.exp(-1))


def test_nothing_to_score_is_nan_and_not_a_number() -> None:
    assert math.isnan(probability([]))
    assert math.isnan(exact_memorization([True]))
    assert math.isnan(extraction_strength([True]))
    assert extraction_strength([True], strict=False) == 0


def test_normalised_probability_is_the_share_of_the_right_option() -> None:
    assert normalised_probability(0.2, [0.1, 0.1]) == pytest.approx(0.5)
    assert normalised_probability(0.0, np.zeros(3)) == 0
