from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from demur.data.labelled_sources import read_labelled
from demur.studies import truly_forgetting as study

GOOD = {
    "agl": 0.9,
    "agr": 0.4,
    "h_lr": 0.5,
    "cka": 0.7,
    "cka forget": 0.5,
    "cka original": 0.7,
    "knn forget": 0.9,
    "knn retain": 0.99,
    "uncentred": 0.9,
    "turned agr": 0.4,
}


def _held(change: dict[str, float]) -> list[bool]:
    row = {f"{model} {what}": value for model in study.MODELS for what, value in GOOD.items()}
    row |= {"head mask agl": 0.99, "head mask knn forget": 0.99, "head mask cka original": 1.0, "retrain2 cka": 0.8}
    row |= {"gradient ascent agl": 0.2, "gradient ascent knn retain": 0.9, "retrain2 agr": 0.6}
    row |= {"retrain2 uncentred": 0.95, "head mask turned agr": 1.0}
    table = pd.DataFrame.from_dict({1: row, 2: {**row, **change}}, orient="index")
    return [claim.holds for claim in study.claims(table)]


@pytest.mark.parametrize(
    "change",
    [
        {"head mask agl": 0.96},
        {"head mask knn forget": 0.94},
        {"head mask cka original": 0.9998},
        {"retrain2 cka": 0.74, "retrain2 uncentred": 0.92},
        {"gradient ascent agl": 0.41},
        {"gradient ascent knn retain": 0.97},
        {"retrain2 agr": 0.4},
        {"fine-tuning uncentred": 0.69},
        {"retrain2 uncentred": 0.98},
        {"head mask turned agr": 0.9},
    ],
    ids=str,
)
def test_every_claim_can_fail_on_one_seed(change: dict[str, float]) -> None:
    assert all(_held({}))
    assert _held(change).count(False) == 1


def test_it_measures_what_its_claims_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEMUR_CACHE", str(tmp_path))
    monkeypatch.setattr(study, "EPOCHS", 1)
    monkeypatch.setattr(study, "digits", lambda part: read_labelled(f"digits:{part}[0:200]"))
    quick = {
        k: (name, {"epochs": 1} if options or name == "rl" else {}) for k, (name, options) in study.METHODS.items()
    }
    monkeypatch.setattr(study, "METHODS", quick)
    measured = study.mutually_similar_digits(1)
    assert measured["retrain agr"] == pytest.approx(1) and measured["original turned agr"] == pytest.approx(1)
    assert measured["head mask cka"] == pytest.approx(measured["original cka"])
    assert len(study.mutually_similar_digits.check({1: measured})) == 10
