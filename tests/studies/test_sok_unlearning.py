from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from demur.studies import authors, sok_unlearning
from demur.studies.sok_unlearning import AUDITED, METHODS, battery, battery_claims

GOOD: dict[str, float] = {
    "full knowledge": 0.96,
    "control relearned": 0.004,
    "control middle lens": 0.2,
    "control measured on what it relearns": 0.5,
}
for name in (*AUDITED, "retrained"):
    away = name == "retrained"
    GOOD |= {
        f"{name} knowledge": 0.001 if away else 0.05,
        f"{name} utility": 0.95,
        f"{name} relearned": 0.004 if away else 0.6,
        f"{name} middle lens": 0.2 if away else 0.8,
        f"{name} relearn recovery": 0.0 if away else 0.6,
        f"{name} benign recovery": 0.6 if name == "IDK tuning" else 0.1,
        f"{name} is suppression": float(not away),
        f"{name} is removal-consistent": float(away),
        f"{name} int8": 0.05,
        f"{name} int4": 0.05,
        f"{name} int3": 0.04,
    }


def check(**changes: float) -> dict[str, bool]:
    table = pd.DataFrame([GOOD, GOOD | changes], index=[1, 2])
    return {claim.text: claim.holds for claim in battery_claims(table)}


def test_the_claims_hold_for_what_the_survey_reports():
    assert all(check().values())


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("IDK tuning knowledge", 0.6, "Methods forget"),
        *[(f"{name} relearn recovery", 0.29, f"back after {name}") for name in AUDITED],
        ("control relearned", 0.06, "learns none"),
        ("control measured on what it relearns", 0.1, "would see the control recover"),
        ("IDK tuning benign recovery", 0.39, "undoes refusal tuning"),
        *[(f"{name} middle lens", 0.49, f"answers after {name}") for name in ("NPO+GD", "IHL+GD", "IDK tuning")],
        ("retrained middle lens", 0.36, "never had them"),
        ("GradDiff is suppression", 0.0, "all four methods"),
        ("retrained is removal-consistent", 0.0, "retrained without the facts"),
        ("NPO+GD int4", 0.2, "Rounding to 4 bits"),
    ],
)
def test_each_claim_fails_when_one_seed_does(name: str, value: float, words: str):
    failed = [text for text, holds in check(**{name: value}).items() if not holds]
    assert len(failed) == 1 and words in failed[0], failed


def test_the_measuring_runs_on_a_small_world_and_measures_what_the_claims_name(
    quick_authors: None, monkeypatch: pytest.MonkeyPatch
):
    budget = sok_unlearning.settings

    def quick():
        from dataclasses import replace

        return replace(budget(), steps=(0, 1), seeds=1, checks=("relearn", "benign", "quantization", "lens"), limit=12)

    monkeypatch.setattr(sok_unlearning, "settings", quick)
    monkeypatch.setattr(sok_unlearning, "METHODS", {"NPO+GD": METHODS["NPO+GD"]})
    monkeypatch.setattr(sok_unlearning, "AUDITED", ("NPO+GD", "IDK tuning"))
    notes: list[str] = []
    measured = battery(1, lambda done, total, note="": notes.append(note))
    assert {"NPO+GD", "IDK tuning", "retrained"} <= set(notes)
    expected = {k for k in GOOD if not k.startswith(("GradDiff", "IHL+GD"))}
    assert expected <= set(measured) and all(np.isfinite(v) for v in measured.values())
    assert authors.LEARN["epochs"] == 1
