from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest

from demur.audits.estimates import Audit, Estimate, Unavailable, evaluate, metric, metrics
from demur.errors import UnknownNameError


@pytest.fixture
def longest() -> Iterator[str]:
    """A metric of a third party."""

    @metric("longest_answer", better="lower", needs=("forget",))
    def longest_answer(audit: Audit) -> Estimate:
        """Tokens of the longest answer."""
        return Estimate(float(audit.columns("forget", ["tokens"]).max()), n=len(audit.samples["forget"]))

    yield "longest_answer"
    del metrics._components["longest_answer"]


def test_anyone_can_add_a_metric(longest: str) -> None:
    audit = Audit({"forget": pd.DataFrame({"tokens": [3, 9, 4]})})
    estimate = evaluate(audit, [longest])[longest]
    result = estimate.result(longest, run="r", suite="mine")
    assert (result.value, result.n, result.better, result.method) == (9.0, 3, "lower", "none")


def test_a_value_that_is_not_finite_becomes_none() -> None:
    @metric("broken", better="none")
    def broken(audit: Audit) -> Estimate:
        """Divides by nothing."""
        return Estimate(math.inf, low=0.0, high=1.0, n=2, method="bootstrap")

    try:
        estimate = evaluate(Audit({}), ["broken"])["broken"]
        assert (estimate.value, estimate.low, estimate.method, estimate.n) == (None, None, "none", 2)
        assert "not finite" in estimate.note
    finally:
        del metrics._components["broken"]


def test_an_unknown_metric_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UnknownNameError, match="did you mean forget_rouge"):
        evaluate(Audit({}), ["forget_rogue"])


def test_a_mean_comes_with_an_interval_around_it() -> None:
    values = np.random.default_rng(0).random(50)
    estimate = Audit({"forget": pd.DataFrame({"x": values})}).mean("forget", "x", np.square)
    assert estimate.value == pytest.approx(float(np.mean(values**2)))
    assert estimate.low is not None and estimate.high is not None
    assert estimate.low < np.mean(values**2) < estimate.high
    assert (estimate.n, estimate.unscored, estimate.method) == (50, 0, "bootstrap")


def test_one_sample_has_a_value_and_no_interval() -> None:
    estimate = Audit({"forget": pd.DataFrame({"x": [0.5]})}).mean("forget", "x")
    assert (estimate.value, estimate.low, estimate.method) == (0.5, None, "none")


def test_columns_are_copies() -> None:
    audit = Audit({"forget": pd.DataFrame({"x": [0.5, 1.0]})})
    audit.columns("forget", ["x"])[:] = 7
    assert list(audit.samples["forget"]["x"]) == [0.5, 1.0]


def test_pairs_refuse_tables_of_different_length() -> None:
    audit = Audit({"forget": pd.DataFrame({"x": [1.0]})}, {"forget": pd.DataFrame({"x": [1.0, 2.0]})})
    with pytest.raises(Unavailable, match="measured on 2 forget rows, the model on 1"):
        audit.pairs("forget", "x")
