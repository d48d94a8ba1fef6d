"""pass@k against brute force over subsets, the optimal policy against a numerical optimum, and the suite end to end."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from cli.command import demur
from demur import UsageError
from demur.audits import Audit, CoverageSettings, coverage_samples, evaluate, optimal_policy, pass_at_n
from demur.audits.coverage import _pass_at
from demur.data import read_rows
from demur.models import LocalEngine, load_model
from demur.reports.glossary import describe
from demur.runs import RunFolder

ROWS = "lab:almanac-tiny:retain[:6]"


@given(st.integers(1, 9), st.data())
def test_pass_at_k_is_the_share_of_subsets_with_a_right_answer(n: int, data: st.DataObject) -> None:
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    subsets = list(itertools.combinations([True] * c + [False] * (n - c), k))
    assert pass_at_n(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets), abs=1e-12)


def test_pass_at_k_has_the_expectation_that_is_estimated() -> None:
    n, p, k = 12, 0.2, 5
    weights = [math.comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1)]
    assert sum(w * pass_at_n(n, c, k) for c, w in enumerate(weights)) == pytest.approx(1 - (1 - p) ** k, rel=1e-12)


@pytest.mark.parametrize("bad", [(4, 5, 1), (4, -1, 1), (4, 2, 5), (4, 2, 0)])
def test_impossible_counts_are_refused(bad: tuple[int, int, int]) -> None:
    with pytest.raises(UsageError, match="cannot be estimated"):
        pass_at_n(*bad)


@pytest.mark.parametrize(
    ("n", "policy", "passing"),
    [
        (1, (1, 0, 0), 0.6),
        (2, (0.666667, 0.333333, 0), 0.7),
        (4, (0.509448, 0.381943, 0.108608), 0.858344),
        (16, (0.369914, 0.340115, 0.289971), 0.998825),
    ],
)
def test_optimal_policy_of_the_worked_example(n: int, policy: tuple[float, ...], passing: float) -> None:
    q = np.array([0.6, 0.3, 0.1])
    found = optimal_policy(q, n)
    assert found == pytest.approx(np.array(policy), abs=1e-6)
    assert (q * (1 - (1 - found) ** n)).sum() == pytest.approx(passing, abs=1e-6)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6).filter(lambda q: max(q) > 1e-3), st.integers(2, 50))
def test_no_policy_passes_more_often_than_the_optimal_one(q: list[float], n: int) -> None:
    chances = np.array(q)
    found = optimal_policy(chances, n)
    assert found.sum() == pytest.approx(1) and (found >= 0).all()

    def loss(p: np.ndarray) -> float:
        return -float((chances * (1 - (1 - p.clip(0, 1)) ** n)).sum())

    bounds = [(0, 1)] * len(q)
    equal = {"type": "eq", "fun": lambda p: p.sum() - 1}
    best = minimize(loss, np.full(len(q), 1 / len(q)), bounds=bounds, constraints=equal)
    assert loss(found) <= loss(np.clip(best.x, 0, 1) / np.clip(best.x, 0, 1).sum()) + 1e-6


def test_more_draws_make_the_policy_less_sure() -> None:
    tops = [optimal_policy([0.5, 0.3, 0.15, 0.05], n).max() for n in (1, 2, 4, 16, 64)]
    assert all(a > b for a, b in itertools.pairwise(tops))


@pytest.mark.parametrize("bad", [([0.5, 0.5], 0), ([0.0, 0.0], 2), ([-0.1, 1.0], 2)])
def test_no_policy_for_nonsense(bad: tuple[list[float], int]) -> None:
    with pytest.raises(UsageError, match="optimal policy"):
        optimal_policy(*bad)


@pytest.mark.parametrize("setting", ["samples", "max_new_tokens", "batch_size"])
def test_settings_out_of_range_are_refused(setting: str) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        CoverageSettings(**{setting: 0})


def test_samples_do_not_depend_on_batches_and_are_independent_draws(tiny_model: Path) -> None:
    lm, rows = load_model(tiny_model), read_rows(ROWS)
    one, other = (
        coverage_samples(LocalEngine(lm, size), rows, CoverageSettings(samples=4, max_new_tokens=24), seed=3).tables
        for size in (3, 24)
    )
    assert one["answers"].equals(other["answers"])
    assert one["questions"]["correct"].tolist() == one["answers"].groupby("id", sort=False)["correct"].sum().tolist()
    confidence = one["questions"]["confidence"]
    assert ((confidence > 0) & (confidence <= 1)).all()
    assert len(set(one["answers"]["generation"])) > len(rows)  # the four answers to a question are not one


def test_from_the_command_line_to_the_report(tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "audit"
    words = ["audit", tiny_model, "--suite", "coverage", "--rows", f"questions={ROWS}", "--out", out]
    done = demur(*words, "--option", "samples=6", "--option", "max_new_tokens=24")
    assert done.code == 0, done.err
    folder = RunFolder.open(out)
    found = folder.results().set_index("metric")
    table = folder.samples("coverage_questions")
    passing = [found.loc[f"pass_at_{k}", "value"] for k in (1, 2, 4, 6)]
    assert passing == sorted(passing)
    assert passing[0] == pytest.approx((table["correct"] / 6).mean()) and passing[-1] == (table["correct"] > 0).mean()
    assert found.loc["greedy_accuracy", "value"] == table["greedy_correct"].mean()
    assert (found["low"] <= found["value"]).all() and (found["value"] <= found["high"]).all()
    assert demur("report", out, "--out", tmp_path / "page.html").code == 0
    page = (tmp_path / "page.html").read_text()
    assert "Coverage of repeated sampling" in page and "Confidence of greedy answers" in page
    assert all(describe(f"coverage/{metric}").definition for metric in found.index)


def test_a_model_that_is_never_right_has_an_interval_with_a_width() -> None:
    table = pd.DataFrame({"samples": [4] * 10, "correct": [0] * 10})
    found = evaluate(Audit({"questions": table}), [_pass_at(2)])["pass_at_2"]
    assert (found.value, found.low, found.method) == (0, 0, "exact") and found.high == pytest.approx(0.308, abs=1e-3)


def test_what_is_missing_is_said(tiny_model: Path, tmp_path: Path) -> None:
    words = ["audit", tiny_model, "--suite", "coverage", "--out", tmp_path / "audit"]
    assert "--rows questions=SOURCE" in demur(*words).sentence
    assert "no set 'forget'" in demur(*words, "--forget", ROWS).sentence
    done = demur(*words, "--rows", f"questions={ROWS}", "--option", "draws=3")
    assert done.code == 2 and "has no setting 'draws'" in done.sentence
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"prompt": "who?"}))
    assert demur(*words, "--rows", f"questions={rows}").code == 2
