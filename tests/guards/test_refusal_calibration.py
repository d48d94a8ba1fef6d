from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import f1_score, roc_auc_score, roc_curve

from demur.errors import UsageError
from demur.guards import (
    NEVER,
    RefusalDial,
    RefusalScores,
    RefusalTokenConfig,
    calibrate,
    choose_tokens,
    refusal_curve,
)

ONE = RefusalTokenConfig({"refuse": "[refuse]"})
TWO = RefusalTokenConfig({"a": "[a]", "b": "[b]"})

labelled = st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=2, max_size=40)


def single(p: np.ndarray) -> RefusalScores:
    """Scores whose refusal token has these probabilities, the rest on the token of an answer."""
    p = np.clip(p, 1e-9, 1 - 1e-9)
    return RefusalScores.from_logits(ONE, [0, 1], torch.tensor(np.stack([np.log1p(-p), np.log(p), p * 0 - 50], 1)))


@given(rows=labelled)
def test_the_curve_is_that_of_scikit_learn(rows: list[tuple[int, bool]]):
    values, wanted = np.array([v / 20 for v, _ in rows]), np.array([w for _, w in rows])
    assume(wanted.any() and not wanted.all())
    curve = refusal_curve(values, wanted)
    over, rate, thresholds = roc_curve(wanted, values, drop_intermediate=False)
    np.testing.assert_array_equal(curve.thresholds, thresholds)
    np.testing.assert_array_equal(curve.refusal_rate, rate)
    np.testing.assert_array_equal(curve.over_refusal, over)
    assert curve.auc == pytest.approx(roc_auc_score(wanted, values))
    for threshold in (0.0, 0.25, 0.5, 0.51, 1.0, 1.1):
        refused = values >= threshold
        assert curve.at(threshold) == (refused[wanted].mean(), refused[~wanted].mean())
        assert curve.f1(threshold) == pytest.approx(f1_score(wanted, refused, zero_division=0))


@given(rows=labelled, rate=st.floats(0, 1))
def test_a_calibrated_threshold_refuses_what_was_wanted_and_no_row_more(rows: list[tuple[int, bool]], rate: float):
    p, wanted = np.array([v / 21 + 0.01 for v, _ in rows]), [w for _, w in rows]
    assume(any(wanted))
    scores = single(p)
    found = calibrate(scores, wanted, refusal_rate=rate)
    hits, n = found.refused["refuse"]
    assert hits >= rate * n - 1e-6
    refused = choose_tokens(scores, found.dial) > 0
    assert refused[np.array(wanted)].sum() == hits
    # One value higher would refuse too few.
    higher = p[np.array(wanted)][p[np.array(wanted)] >= float(found.dial.threshold)]  # type: ignore[arg-type]
    if len(higher):
        assert (higher > higher.min()).sum() < rate * n


@given(rows=labelled, most=st.floats(0, 1))
def test_a_highest_over_refusal_is_kept_and_used(rows: list[tuple[int, bool]], most: float):
    p, wanted = np.array([v / 21 + 0.01 for v, _ in rows]), np.array([w for _, w in rows])
    assume(not wanted.all())
    found = calibrate(single(p), wanted.tolist(), max_over_refusal=most)
    slips, n = found.over
    assert slips <= most * n + 1e-6
    left = p[~wanted][p[~wanted] < float(found.dial.threshold)]  # type: ignore[arg-type]
    if len(left):  # the next lower value would break it
        assert (p[~wanted] >= left.max()).sum() > most * n


def two_category_scores(seed: int, n: int = 200) -> tuple[RefusalScores, list[bool], list[str | None]]:
    generator = np.random.default_rng(seed)
    categories = generator.integers(2, size=n)
    wanted = generator.random(n) < 0.6
    logits = generator.normal(size=(n, 4))
    logits[np.arange(n), 1 + categories] += 2.0 * wanted + 1.0
    return (
        RefusalScores.from_logits(TWO, [0, 1, 2], torch.tensor(logits)),
        wanted.tolist(),
        ["ab"[c] for c in categories],
    )


@pytest.mark.parametrize("rates", [{"a": 0.5}, {"a": 0.8, "b": 0.3}, {"a": 0.2, "b": 0.9}], ids=str)
def test_rates_by_category_are_met_together(rates: dict[str, float]):
    scores, wanted, categories = two_category_scores(0)
    found = calibrate(scores, wanted, categories, refusal_rate=rates)
    refused = choose_tokens(scores, found.dial) > 0
    for name, rate in rates.items():
        rows = np.array(wanted) & (np.array(categories) == name)
        assert refused[rows].mean() == pytest.approx(rate, abs=1.01 / rows.sum()), found
        assert found.refused[name] == (refused[rows].sum(), rows.sum())
    assert not found.notes
    assert set(found.dial.threshold) == set(rates)  # type: ignore[arg-type]


def test_moving_one_category_leaves_rows_that_look_like_the_other_alone():
    scores, wanted, categories = two_category_scores(1)
    free = choose_tokens(scores, RefusalDial({}))
    shut = choose_tokens(scores, RefusalDial({"a": NEVER}))
    other = scores.top == 1
    assert (free[other] == shut[other]).all() and (shut[~other] == 0).all() and wanted and categories


def test_a_rate_that_cannot_be_had_is_said():
    scores, wanted, categories = two_category_scores(2)
    swapped: list[str | None] = ["b" if c == "a" else "a" for c in categories]
    found = calibrate(scores, wanted, swapped, refusal_rate={"a": 0.0})
    assert any("a: 0 was wanted" in note for note in found.notes)


def test_noise_in_the_last_digits_flips_no_row():
    p = np.linspace(0.05, 0.95, 10)
    found = calibrate(single(p), [True] * 10, refusal_rate=0.5)
    for noise in (-1e-7, 1e-7):
        assert (choose_tokens(single(p + noise), found.dial) > 0).sum() == 5


def test_bad_aims_are_refused():
    scores = single(np.array([0.2, 0.7]))
    for aims in ({}, {"refusal_rate": 0.5, "max_over_refusal": 0.1}):
        with pytest.raises(UsageError, match="one of the two"):
            calibrate(scores, [True, False], **aims)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="between 0 and 1"):
        calibrate(scores, [True, False], refusal_rate=1.5)
    with pytest.raises(UsageError, match="label comply"):
        calibrate(scores, [True, True], max_over_refusal=0.5)
    with pytest.raises(UsageError, match="no refusal token for category 'x'"):
        calibrate(scores, [True, False], ["x", "x"], refusal_rate={"x": 0.5})
    with pytest.raises(UsageError, match="rows to answer"):
        refusal_curve([0.1, 0.2], [True, True])
    assert math.isinf(refusal_curve([0.1, 0.2], [True, False]).thresholds[0])
