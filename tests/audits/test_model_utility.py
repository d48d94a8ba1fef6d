from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import hmean

from demur.audits.model_utility import UTILITY_PARTS, harmonic_mean, utility_from_parts
from demur.errors import UsageError

PARTS = (0.9, 0.8, 0.45, 0.5, 0.9, 0.6, 0.4, 0.9, 0.5)


def test_known_utility() -> None:
    assert utility_from_parts(dict(zip(UTILITY_PARTS, PARTS, strict=True))) == pytest.approx(0.601113, abs=1e-6)


@given(st.lists(st.floats(1e-6, 1), min_size=1, max_size=9))
def test_the_harmonic_mean_equals_scipy_and_is_zero_as_soon_as_one_part_is(values: list[float]) -> None:
    assert harmonic_mean(values) == pytest.approx(hmean(values))
    assert harmonic_mean([*values, 0.0]) == 0


def test_the_mean_runs_over_the_last_axis() -> None:
    assert harmonic_mean(np.array([PARTS, PARTS[::-1]])) == pytest.approx([0.601113, 0.601113], abs=1e-6)


def test_a_missing_part_and_a_negative_value_are_refused() -> None:
    with pytest.raises(UsageError, match="missing: retain_probability"):
        utility_from_parts(dict(zip(UTILITY_PARTS[1:], PARTS[1:], strict=True)))
    with pytest.raises(UsageError, match="below 0"):
        harmonic_mean([0.5, -0.1])
