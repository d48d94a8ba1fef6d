from __future__ import annotations

import pandas as pd
import pytest

from demur.studies import NotMeasured, loku
from demur.studies.loku import LOSSES, STARTS


def test_without_the_data_it_is_not_measured(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setenv("DEMUR_SHARED_DATA", str(tmp_path))
    with pytest.raises(NotMeasured, match="DEMUR_SHARED_DATA"):
        loku.tofu(1)


def _claims(change: dict[str, float]) -> list[bool]:
    row = {"step 0 right": 1e-7, "step 0 undivided": 2.0}
    for loss in LOSSES:
        for start in STARTS:
            lowest = 0.8 if loss == "IHL" else 0.2
            early = 0.9 if start == "LoRA" else 0.1
            values = {"before": 0.96, "early forget": early, "early retain": 0.9, "forget": 1e-4, "retain": 0.9}
            row |= {f"{loss} {start} {name}": v for name, v in {**values, "lowest retain": lowest}.items()}
    table = pd.DataFrame.from_dict({1: row, 2: {**row, **change}}, orient="index")
    return [claim.holds for claim in loku.claims(table)]


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ({}, 0),
        ({"IHL LoRA before": 0.8}, 1),
        ({"IHL FILA early forget": 0.31}, 1),
        ({"IHL LoRA lowest retain": 0.69}, 1),
        ({"IHL FILA lowest retain": 0.69}, 1),
        ({"GradDiff LoRA lowest retain": 0.51}, 1),
        ({"GradDiff FILA lowest retain": 0.51}, 1),
        ({"step 0 right": 1e-4}, 1),
        ({"step 0 undivided": 1e-6}, 1),
    ],
    ids=str,
)
def test_every_claim_can_fail_on_one_seed(change: dict[str, float], broken: int) -> None:
    assert sum(not holds for holds in _claims(change)) == broken


def test_it_measures_what_its_claims_read(quick_authors: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"EPOCHS": 1, "EVERY": 1, "DRAWS": 1}.items():
        monkeypatch.setattr(loku, name, value)
    measured = loku.tofu(1)
    assert measured["step 0 right"] < 1e-5 < measured["step 0 undivided"]
    assert loku.tofu.check({1: measured})
