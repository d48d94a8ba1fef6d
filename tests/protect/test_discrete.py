from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demur.data.tables import TableEncoding
from demur.protect import RobustCounterfactual, fit_linear
from demur.protect.discrete import nearest_on_grid

RNG = np.random.default_rng(0)
TABLE = pd.DataFrame(
    {
        "priors": RNG.integers(0, 20, 120),
        "charge": RNG.choice(["felony", "misdemeanour", "none"], 120),
        "income": RNG.uniform(10, 90, 120).round(2),
        "sex": RNG.choice(["female", "male"], 120),
    }
)
ENCODING = TableEncoding.of(TABLE)
X = ENCODING.encode(TABLE)
LEAN = 0.06 * TABLE["income"] - 0.3 * TABLE["priors"] + 1.2 * (TABLE["charge"] == "none") + 0.5
Y = (LEAN + RNG.logistic(size=120) > 1).to_numpy(int)
FIT = fit_linear(X, Y, 1e-2)
REFUSED = X[FIT.scores(X) < 0]


@given(st.integers(0, len(REFUSED) - 1), st.integers(0, 3))
@settings(max_examples=20, deadline=None)
def test_what_is_proposed_is_a_row_that_could_be_and_still_survives(row: int, k: int) -> None:
    free = ENCODING.actionable(["sex"])
    explain = RobustCounterfactual(FIT, X, Y, k=k, actionable=free, bounds=(0, 1), encoding=ENCODING)
    x0 = REFUSED[row]
    found = explain.explain(x0)
    if not found.valid:
        return
    assert explain.worst(found.x)[0] >= -1e-6
    assert (found.x[~free] == x0[~free]).all()
    for column in ENCODING.columns:
        part = found.x[column.features]
        if column.values:
            assert set(part) <= {0.0, 1.0} and part.sum() <= 1
        elif column.whole:
            raw = part[0] * column.span + column.low
            assert raw == pytest.approx(round(raw), abs=1e-6)
    real_numbers = RobustCounterfactual(FIT, X, Y, k=k, actionable=free, bounds=(0, 1)).explain(x0)
    assert found.cost >= real_numbers.cost - 1e-7


def test_the_nearest_row_is_found_among_all_rows_there_are() -> None:
    """Brute force over every number of priors and every charge, with the income fixed."""
    free = ENCODING.actionable(["sex", "income"])
    explain = RobustCounterfactual(FIT, X, Y, k=2, actionable=free, bounds=(0, 1), encoding=ENCODING)
    tried = 0
    for x0 in REFUSED[:12]:
        row = ENCODING.decode(x0)
        others = pd.DataFrame(
            [{**row, "priors": p, "charge": c} for p in range(20) for c in ("felony", "misdemeanour", "none")]
        )
        points = ENCODING.encode(others)
        costs = [np.linalg.norm(p - x0) for p in points if explain.worst(p)[0] >= 0]
        found = explain.explain(x0)
        assert found.valid == bool(costs)
        if costs:
            tried += 1
            assert found.cost == pytest.approx(min(costs), abs=1e-9)
    assert tried >= 5


def test_rounding_that_loses_what_was_needed_is_made_up_for() -> None:
    """The score falls in priors twice as fast beyond the exact answer, so that rounding alone would not do."""
    x0 = REFUSED[0]

    def worst(x: np.ndarray) -> float:  # type: ignore[type-arg]
        return float(2 * (x[1] - x0[1]) - (x[0] - x0[0]) - 0.31)

    def solve(start: np.ndarray, free: np.ndarray, goal: float) -> np.ndarray:  # type: ignore[type-arg]
        x = start.copy()
        x[0] = min(1.0, x0[0] + 0.0123)  # rounds away from x0 and costs score
        x[1] = x0[1] + (goal + 0.31 + x[0] - x0[0]) / 2
        return x

    bounds = (np.full(5, -np.inf), np.full(5, np.inf))
    x = nearest_on_grid(solve, worst, x0, np.array([True, True, False, False, False]), 0.0, ENCODING, bounds)
    assert worst(x) >= 0
