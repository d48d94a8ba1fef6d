from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from demur.audits.truth_ratio import truth_ratio_scores, truth_ratio_summary, truth_ratios, truth_shares
from demur.errors import UsageError

RATIOS = (0.25, 0.8, 1.25, 4.0)
losses = st.floats(0.01, 8)


def test_aggregators_on_known_ratios() -> None:
    assert truth_ratio_summary(RATIOS, "closer_to_1_better") == pytest.approx(0.525)
    assert truth_ratio_summary(RATIOS, "true_better") == pytest.approx(0.2375)
    assert truth_ratio_summary(RATIOS, "prob_mean") == pytest.approx(1.575)


def test_false_answers_are_averaged_geometrically() -> None:
    false = -np.log([0.1, 0.4])
    assert truth_ratios(-np.log(0.5), false) == pytest.approx(0.2 / 0.5)  # the arithmetic mean would give .25 / .5


@given(losses, st.lists(losses, min_size=1, max_size=5))
def test_the_true_share_is_one_over_one_plus_the_ratio(true: float, false: list[float]) -> None:
    assert truth_shares(true, false) == pytest.approx(1 / (1 + truth_ratios(true, false)), rel=1e-6)


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=20))
def test_closer_to_1_better_is_the_same_for_ratios_and_their_inverses(ratios: list[float]) -> None:
    both = [truth_ratio_scores(x, "closer_to_1_better") for x in (np.array(ratios), 1 / np.array(ratios))]
    assert both[0] == pytest.approx(both[1], rel=1e-6)


def test_many_rows_at_once_equal_row_by_row() -> None:
    true, false = np.array([0.3, 2.0]), np.array([[1.0, 2.0], [0.5, 0.1]])
    assert truth_ratios(true, false) == pytest.approx([truth_ratios(t, f) for t, f in zip(true, false, strict=True)])


def test_shapes_that_do_not_fit_and_unknown_aggregators_are_refused() -> None:
    with pytest.raises(UsageError, match="do not belong"):
        truth_ratios([1.0, 2.0], [[1.0]])
    with pytest.raises(UsageError, match="do not belong"):
        truth_ratios([1.0], np.empty((1, 0)))
    with pytest.raises(UsageError, match="did you mean true_better"):
        truth_ratio_scores(RATIOS, "truer_better")  # type: ignore[arg-type]
