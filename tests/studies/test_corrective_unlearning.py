from __future__ import annotations

import pandas as pd
import pytest

from demur.studies import corrective_unlearning as study

METRICS = ("corrected_without_target", "corrected_accuracy", "retained_accuracy")


def _row() -> dict[str, float]:
    corrected = {"retrain": (0.02, 0.1, 0.4, 0.95), "ft": (0.0, 0.0, 0.0, 0.05), "ssd": (0.3, 0.6, 0.6, 0.6)}
    row = {
        "original@0 attack_success": 0.99,
        "original@0 retained_accuracy": 0.98,
        "original@0 corrected_accuracy": 0.1,
    }
    for method in study.METHODS:
        for ratio, value in zip(study.RATIOS, corrected.get(method, (0.0,) * 4), strict=True):
            row |= {f"{method}@{ratio:g} {metric}": value for metric in METRICS}
            row[f"{method}@{ratio:g} retained_accuracy"] = 0.9
    return row


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ({}, 0),
        ({"original@0 attack_success": 0.9}, 1),
        ({"retrain@0.5 corrected_without_target": 0.3, "ssd@0.5 corrected_without_target": 0.7}, 1),
        ({"retrain@1 corrected_without_target": 0.8}, 1),
        ({"ft@1 corrected_without_target": 0.2}, 1),
        ({"ssd@0.5 corrected_without_target": 0.25}, 1),
        ({"ssd@0.5 retained_accuracy": 0.8}, 1),
        ({"retrain@1 corrected_accuracy": 0.5}, 0),
    ],
    ids=str,
)
def test_every_claim_about_the_patch_can_fail_on_one_seed(change: dict[str, float], broken: int) -> None:
    table = pd.DataFrame.from_dict({1: _row(), 2: {**_row(), **change}}, orient="index")
    assert [claim.holds for claim in study.patch_claims(table)].count(False) == broken


@pytest.mark.parametrize(("value", "broken"), [(0.95, 0), (0.8, 1)])
def test_the_claim_about_exchanged_classes_can_fail_on_one_seed(value: float, broken: int) -> None:
    changed = {**_row(), "retrain@1 corrected_accuracy": value}
    table = pd.DataFrame.from_dict({1: _row(), 2: changed}, orient="index")
    assert [claim.holds for claim in study.exchanged_claims(table)].count(False) == broken


def test_it_measures_what_its_claims_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "EPOCHS", 1)
    short = ("ft", "retrain", "ssd", "eu-k", "cf-k", "scrub", "bad-teacher")
    assert set(short) == set(study.METHODS)
    quick = {
        **{name: study.edited("ft", {"epochs": 1}) for name in study.METHODS},
        "retrain": study.METHODS["retrain"],
        "ssd": study.dampened((0.1,), (1.0,)),
    }
    monkeypatch.setattr(study, "METHODS", quick)
    monkeypatch.setattr(study, "read_labelled", lambda source, seed: _few(source, seed))
    monkeypatch.setattr(study, "VALIDATION", 20)
    monkeypatch.setattr(study, "MANIPULATED", 20)
    for part in (study.patch, study.exchanged):
        measured = part(1)
        assert part.check({1: measured})
        assert "original@0 attack_success" in measured


def _few(source: str, seed: int):  # type: ignore[no-untyped-def]
    from demur.data.labelled_sources import read_labelled

    return read_labelled(source, seed=seed).subset(range(120))
