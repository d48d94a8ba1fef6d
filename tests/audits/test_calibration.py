from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from demur.audits.calibration import (
    aurc,
    average_precision,
    expected_calibration_error,
    reliability_bins,
    risk_coverage,
    sequence_confidence,
)
from demur.errors import UsageError

CORRECT, CONF, SURE = [1, 0, 1, 1, 0], np.array([0.9, 0.8, 0.6, 0.4, 0.3]), np.array([0.95, 0.2, 0.7, 0.9, 0.4])
ANSWERS = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 4)), min_size=1, max_size=20)


def split(answers):
    return np.array([c for c, _ in answers]), np.array([s / 4 for _, s in answers])


def test_confidence_of_an_answer_is_the_geometric_mean_of_its_tokens():
    assert sequence_confidence([0.9, 0.5, 0.8]) == pytest.approx(0.711379, abs=1e-6)
    assert sequence_confidence([0.5, 0.0]) == 0.0
    with pytest.raises(UsageError, match="without tokens"):
        sequence_confidence([])


def test_average_precision_of_the_worked_example():
    assert average_precision(CORRECT, CONF) == pytest.approx(0.805556, abs=1e-6)
    assert average_precision(CORRECT, 0.5 * CONF + 0.5 * SURE) == 1.0


@given(ANSWERS)
def test_average_precision_equals_scikit_learns_ties_included(answers):
    correct, confidence = split(answers)
    if correct.any():
        assert average_precision(correct, confidence) == pytest.approx(average_precision_score(correct, confidence))
    else:
        assert average_precision(correct, confidence) == 0.0


def test_a_constant_confidence_gives_the_base_rate_and_a_random_one_comes_near_it():
    generator = np.random.default_rng(0)
    correct = generator.random(4000) < 0.3
    assert average_precision(correct, np.full(4000, 0.5)) == pytest.approx(correct.mean(), abs=1e-12)
    assert average_precision(correct, generator.random(4000)) == pytest.approx(0.3, abs=0.03)
    assert aurc(correct, np.full(4000, 0.5)) == pytest.approx(1 - correct.mean(), abs=1e-12)


@given(ANSWERS)
def test_many_draws_give_what_each_gives_alone(answers):
    correct, confidence = split(answers)
    draws = np.stack([correct, correct[::-1]]), np.stack([confidence, confidence])
    for statistic in (average_precision, aurc, expected_calibration_error):
        alone = [float(statistic(c, s)) for c, s in zip(*draws, strict=True)]
        assert statistic(*draws) == pytest.approx(alone)


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 2)), min_size=1, max_size=5))
def test_risk_is_the_mean_over_all_orders_of_equally_confident_answers(answers):
    correct, confidence = split(answers)
    n, risks = len(correct), []
    for order in itertools.permutations(range(n)):
        ranked = sorted(order, key=lambda i: -confidence[i])
        risks.append(np.cumsum(1 - correct[ranked]) / np.arange(1, n + 1))
    coverage, risk = risk_coverage(correct, confidence)
    assert risk == pytest.approx(np.mean(risks, axis=0))
    assert coverage.tolist() == [(k + 1) / n for k in range(n)]


def test_risk_by_hand():
    _, risk = risk_coverage(CORRECT, CONF)
    assert risk.tolist() == pytest.approx([0, 1 / 2, 1 / 3, 1 / 4, 2 / 5])
    assert aurc(CORRECT, CONF) == pytest.approx(np.mean([0, 1 / 2, 1 / 3, 1 / 4, 2 / 5]))


def test_calibration_error_by_hand_and_of_what_is_calibrated():
    # Bins of a quarter: {.1, .2} right half the time, {.8, .9} always.
    correct, confidence = [1, 0, 1, 1], [0.1, 0.2, 0.8, 0.9]
    assert expected_calibration_error(correct, confidence, bins=4) == pytest.approx(0.5 * 0.35 + 0.5 * 0.15)
    assert expected_calibration_error([1, 1, 0, 0], [0.5] * 4) == 0.0
    assert expected_calibration_error([1, 0], [1.0, 0.0]) == 0.0


@given(ANSWERS, st.integers(1, 12))
def test_the_bins_hold_every_answer_once_and_give_the_calibration_error(answers, bins):
    correct, confidence = split(answers)
    made = reliability_bins(correct, confidence, bins)
    assert sum(b.n for b in made) == len(correct)
    assert all(b.low - 1e-12 <= b.confidence <= b.high + 1e-12 for b in made)
    assert all(b.accuracy_low <= b.accuracy <= b.accuracy_high for b in made)
    error = sum(b.n * abs(b.accuracy - b.confidence) for b in made) / len(correct)
    assert expected_calibration_error(correct, confidence, bins) == pytest.approx(error)


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (lambda: average_precision([1], [0.5, 0.5]), "truth values but"),
        (lambda: aurc([], []), "no answers"),
        (lambda: expected_calibration_error([1], [1.5]), r"\[0, 1\]"),
        (lambda: reliability_bins([1], [0.5], 0), "at least 1"),
    ],
)
def test_what_cannot_be_measured_is_refused(broken, sentence):
    with pytest.raises(UsageError, match=sentence):
        broken()
