from __future__ import annotations

import pandas as pd
import pytest

from demur.studies import worst_case_forget as study


def _row() -> dict[str, float]:
    found = {"unlearning_accuracy": 0.0, "loss": 0.003, "mia_nonmember_rate": 0.0, "test_accuracy": 0.96}
    random = {"unlearning_accuracy": 0.04, "loss": 0.1, "mia_nonmember_rate": 0.1, "test_accuracy": 0.96}
    easiest = {"unlearning_accuracy": 0.35, "loss": 1.2, "mia_nonmember_rate": 0.6, "test_accuracy": 0.95}
    sets = {"worst": found, "ranking": found, "easiest": easiest, "short step": random}
    sets |= {f"random {draw}": random for draw in range(study.DRAWS)}
    row = {f"{name} {metric}": value for name, values in sets.items() for metric, value in values.items()}
    return {**row, "short step of the start": 0.9}


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ({}, 0),
        ({"worst loss": 0.03}, 1),
        ({"worst unlearning_accuracy": 0.025}, 1),
        ({"worst mia_nonmember_rate": 0.05}, 1),
        ({"random 3 mia_nonmember_rate": 0.0}, 1),
        ({"easiest unlearning_accuracy": 0.1}, 1),
        ({"worst test_accuracy": 0.9}, 1),
        ({"short step of the start": 0.1}, 1),
    ],
    ids=str,
)
def test_every_claim_can_fail_on_one_seed(change: dict[str, float], broken: int) -> None:
    table = pd.DataFrame.from_dict({1: _row(), 2: {**_row(), **change}}, orient="index")
    assert [claim.holds for claim in study.claims(table)].count(False) == broken


def test_it_measures_what_its_claims_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"ROWS": 100, "SIZE": 10, "EPOCHS": 1, "OUTER": 1, "DRAWS": 2}.items():
        monkeypatch.setattr(study, name, value)
    measured = study.digits(1)
    assert study.digits.check({1: measured})
    assert measured["short step of the start"] >= 0.5
