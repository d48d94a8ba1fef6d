from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from demur.audits.recovery import attacked, recovery

RNG = np.random.default_rng(0)
FULL = RNG.uniform(0.8, 1.0, 20)
CONTROL = RNG.uniform(0.0, 0.1, (20, 3))


def test_the_control_recovers_nothing_and_the_model_before_everything():
    same = recovery(CONTROL, CONTROL, FULL)
    assert same.value == 0.0 and same.low is not None and abs(same.low) < 0.05 and abs(same.high or 1) < 0.05
    full = recovery(FULL[:, None], CONTROL, FULL)
    assert full.value == pytest.approx(1.0) and full.low == pytest.approx(1.0) and full.high == pytest.approx(1.0)


def test_it_is_the_share_of_the_way_from_the_control_to_the_model_before():
    half = (CONTROL.mean() + FULL.mean()) / 2
    assert recovery(np.full((20, 3), half), CONTROL, FULL).value == pytest.approx(0.5)


@given(st.floats(0, 1), st.floats(0, 1))
def test_more_knowledge_is_more_recovery_and_both_ends_are_clipped(a: float, b: float):
    low, high = (recovery(np.full((20, 1), x), CONTROL, FULL, resamples=50).value for x in sorted((a, b)))
    assert -1.0 <= low <= high <= 1.0


def test_facts_stay_together_so_that_what_differs_between_facts_does_not_widen_the_interval():
    spread = np.linspace(0.1, 1.0, 20)
    paired = recovery((0.5 * spread)[:, None], np.zeros((20, 1)), spread)
    assert paired.value == pytest.approx(0.5) and paired.low == pytest.approx(0.5) and paired.high == pytest.approx(0.5)


def test_disagreeing_seeds_widen_the_interval():
    u = np.tile([0.1, 0.5, 0.9], (20, 1))
    wide, narrow = recovery(u, CONTROL, FULL), recovery(np.full((20, 3), 0.5), CONTROL, FULL)
    assert wide.high - wide.low > 5 * (narrow.high - narrow.low)


def test_a_fact_without_a_value_is_left_out_and_counted():
    u = CONTROL.copy()
    u[:5, 1] = np.nan
    found = recovery(u, CONTROL, FULL)
    assert (found.n, found.unscored) == (15, 5)


def test_there_is_no_share_where_the_model_before_knew_no_more_than_the_control():
    found = recovery(CONTROL, CONTROL, CONTROL[:, 0])
    assert found.value is None and "no more than the control" in found.note


def test_the_attacker_stops_at_the_best_moment_for_each_seed():
    rows = [
        ("relearn", seed, lr, step, fact, 0.1 + 0.01 * step * (lr == 1.0) * (step <= 15 + 15 * seed))
        for seed in (0, 1)
        for lr in (0.2, 1.0)
        for step in (0, 15, 30)
        for fact in ("a", "b")
    ]
    table = pd.DataFrame(rows, columns=["attack", "seed", "lr", "step", "id", "knowledge"])
    np.testing.assert_allclose(attacked(table, "relearn", ["b", "a"]), [[0.25, 0.4], [0.25, 0.4]])
    np.testing.assert_allclose(attacked(table, "relearn", ["a"], last=15), [[0.25, 0.25]])
    np.testing.assert_allclose(attacked(table, "relearn", ["a"], last=0), [[0.1, 0.1]])
