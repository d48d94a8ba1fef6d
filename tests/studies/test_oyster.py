from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from demur.audits import ConstructiveScore
from demur.data import SafetyChain, trajectories_to_preferences
from demur.data.builders.lingo_bp import Edit
from demur.studies import oyster, oyster_training


def _held(part, row: dict[str, float], change: dict[str, float]) -> list[bool]:
    return [claim.holds for claim in part(pd.DataFrame.from_dict({1: row, 2: {**row, **change}}, orient="index"))]


SELECTION = {f"{name} {what}": 0.0 for name in (*oyster.KINDS, "MAP type", "pearl point") for what in ("C", "risk")}
SELECTION |= {"CSA C": 0.3, "constructive C": 0.29, "MAP type C": 0.2, "CSA risk": 0.07, "sign turned risk": 0.5}
SELECTION |= {"CSA β=0.1 direct": 0.7, "CSA direct": 0.1, "CSA β=10 direct": 0.01, "CSA β=10 refuse": 0.1}
SELECTION |= {"refuse normalised": -0.23, "CSA normalised": 0.3}


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ({}, 0),
        ({"evasive C": 0.31}, 1),
        ({"MAP type C": 0.27}, 1),
        ({"CSA risk": 0.2}, 1),
        ({"CSA β=0.1 direct": 0.5}, 1),
        ({"CSA β=10 direct": 0.1}, 1),
        ({"refuse normalised": -0.1}, 1),
    ],
    ids=str,
)
def test_every_claim_about_selection_can_fail_on_one_seed(change: dict[str, float], broken: int) -> None:
    assert _held(oyster.selection_claims, SELECTION, change).count(False) == broken


LINGO = {f"{arm} {t}": 0.1 + 0.13 * t for arm in ("with", "without") for t in range(4)}
LINGO |= {"without 3": 0.44, "with largest": 4.0, "without largest": 10.0}


@pytest.mark.parametrize(("change", "broken"), [({}, 0), ({"with 0": 0.2}, 1), ({"without 3": 0.48}, 1)], ids=str)
def test_every_claim_about_feedback_can_fail_on_one_seed(change: dict[str, float], broken: int) -> None:
    assert _held(oyster.lingo_bp_claims, LINGO, change).count(False) == broken


TRAINING = {
    f"{arm} {kind} {family}": 0.0
    for arm in ("before", "SFT", "ORPO", "swapped", "narrow")
    for kind in oyster_training.OPTIMISED
    for family in ("answer", "redirect", "refuse")
}
TRAINING |= {"ORPO sensitive redirect": 0.9, "ORPO benign answer": 0.9, "swapped sensitive refuse": 0.8}


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ({}, 0),
        ({"ORPO sensitive redirect": 0.7}, 1),
        ({"ORPO malicious answer": 0.2}, 1),
        ({"ORPO benign answer": 0.7}, 1),
        ({"swapped sensitive refuse": 0.1}, 1),
    ],
    ids=str,
)
def test_every_claim_about_training_can_fail_on_one_seed(change: dict[str, float], broken: int) -> None:
    assert _held(oyster_training.training_claims, TRAINING, change).count(False) == broken


def test_users_are_drawn_from_the_belief_that_the_leader_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oyster, "QUERIES", 2000)
    queries = oyster.make_queries(1)
    told = np.array([q.prior[0] for q in queries])
    benign = np.array([q.kind == "benign" for q in queries])
    assert told[benign].mean() > told[~benign].mean() + 0.3
    assert abs(told.mean() - benign.mean()) < 0.04


def test_selection_measures_what_its_claims_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oyster, "QUERIES", 50)
    measured = oyster.selection(1)
    assert set(SELECTION) <= set(measured)
    normalised = ConstructiveScore(beta=2.0)._normalised(np.array(measured["direct C"]))
    assert measured["direct normalised"] == pytest.approx(float(normalised))
    assert len(oyster.selection.check({1: measured})) == 6


def test_the_editor_makes_one_right_edit_or_a_random_one(monkeypatch: pytest.MonkeyPatch) -> None:
    start = (*sorted(oyster.FORBIDDEN), *sorted(oyster.REQUIRED)[:1])
    edit = Edit("q", SafetyChain("help", usefulness_strategies=start), "", None, None, "both")
    before = oyster.judge_strategies("", "; ".join(start)).score
    for slips, gain in ((0.0, 1), (1.0, None)):
        monkeypatch.setattr(oyster, "RANDOM", slips)
        reply = oyster.ScriptedEditor(np.random.default_rng(3)).revise(edit)
        now = [s for s in oyster.STRATEGIES if f'"{s}"' in reply]
        after = oyster.judge_strategies("", "; ".join(now)).score
        assert (round(4 * (after - before)) == gain) if gain else len(now) == len(start)


def test_feedback_measures_what_its_claims_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oyster, "ITEMS", 12)
    measured = oyster.lingo_bp(1)
    assert set(measured) == set(LINGO) and measured["with 0"] == measured["without 0"]


def test_held_out_prompts_are_new_pairs_and_trajectories_prefer_the_optimised() -> None:
    seen, held = oyster_training.make_prompts(1)
    assert not {p.split(" ", 1)[1] for _, p, _ in seen} & {p.split(" ", 1)[1] for _, p, _ in held}
    rows = trajectories_to_preferences(oyster_training.make_trajectories(seen, 1))
    kinds = {
        k: {(r["chosen"].split()[0], r["rejected"].split()[0]) for r in rows if k in r["prompt"]}
        for k in oyster_training.OPTIMISED
    }
    assert kinds["benign"] == {("answer", "refuse")} and kinds["malicious"] == {("refuse", "answer")}
    assert kinds["sensitive"] == {("redirect", "refuse"), ("redirect", "answer")}


def test_training_measures_what_its_claims_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TOPICS": 8, "MARKS": 3, "WIDTH": 16, "BATCH": 4}.items():
        monkeypatch.setattr(oyster_training, name, value)
    for name in ("BASE_STEPS", "SFT_STEPS", "ORPO_STEPS"):
        monkeypatch.setattr(oyster_training, name, 1)
    measured = oyster_training.training(1)
    assert set(measured) == set(TRAINING) and len(oyster_training.training.check({1: measured})) == 4
