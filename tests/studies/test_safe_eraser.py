from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import demur.lab
from demur.data import read_rows
from demur.studies import safe_eraser
from tiny_vision import tiny_vision_folder


def _claims(change: dict[str, float]) -> dict[str, bool]:
    values = {"before": (0.97, 0.01, 0.02, 0.97), "refusals": (0.0, 1.0, 1.0, 0.4), "flipped": (0.0, 1.0, 1.0, 0.02)}
    for method in safe_eraser.METHODS:
        values[f"{method} 0"] = (0.0, 0.9, 0.95, 0.2)
        values[f"{method} 0.5"] = (0.0, 0.2, 0.7, 0.5)
        values[f"{method} 1"] = (0.01, 0.1, 0.6, 0.6)
    row = {
        f"{name} {what}": number
        for name, numbers in values.items()
        for what, number in zip(("harmful", "sarr", "other", "safe"), numbers, strict=True)
    }
    table = pd.DataFrame.from_dict({1: row, 2: {**row, **change}}, orient="index")
    return {claim.text: claim.holds for claim in safe_eraser.scenes_claims(table)}


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ({}, 0),
        ({"before harmful": 0.8}, 1),
        ({"KL 0.5 harmful": 0.06}, 1),
        ({"GA 1 sarr": 0.28}, 1),
        ({"GD 0 sarr": 0.3}, 1),
        ({"KL 1 sarr": 0.29, "KL 1 other": 0.9}, 1),
        ({"PO 1 sarr": 0.28, "PO 1 other": 0.9}, 1),
        ({"GA 1 safe": 0.2}, 1),
        ({"GD 1 safe": 0.1}, 1),
        ({"KL 1 safe": 0.2}, 1),
        ({"PO 1 safe": 0.2}, 1),
        ({"refusals sarr": 0.89}, 1),
        ({"flipped sarr": 0.5}, 1),
        ({"PO 1 other": 0.01}, 1),
    ],
    ids=str,
)
def test_every_claim_can_fail_on_one_seed(change: dict[str, float], broken: int) -> None:
    failed = [text for text, holds in _claims(change).items() if not holds]
    assert len(failed) == broken, failed


def test_the_controls_are_decoupling_done_wrong(tmp_path: Path) -> None:
    controls = safe_eraser._controls(tmp_path)
    refusals, both = read_rows(controls["refusals"]["decoupled"]), read_rows(controls["flipped"]["forget"])
    right = read_rows("lab:scenes-digits:decoupled")
    assert refusals["id"][:] == right["id"][:] and refusals["image_path"][:] == right["image_path"][:]
    assert len(set(refusals["answer"])) == 1 and not set(refusals["answer"]) & set(right["answer"])
    assert len(both) == 2400 and both["answer"][1200:] == right["answer"][:]


def test_the_study_measures_what_its_claims_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = tiny_vision_folder(tmp_path_factory.getbasetemp())
    asked: list[Any] = []
    monkeypatch.setattr(demur.lab, "model_path", lambda name, progress: asked.append(name) or model, raising=False)
    monkeypatch.setattr(safe_eraser, "ROWS", "[0:2]")
    monkeypatch.setattr(safe_eraser, "WEIGHTS", (0.0, 1.0))
    monkeypatch.setattr(safe_eraser, "METHODS", {name: safe_eraser.METHODS[name] for name in ("GD",)})
    monkeypatch.setitem(safe_eraser.UNLEARN, "epochs", 1)
    measured = safe_eraser.scenes(3)
    assert asked == [f"{safe_eraser.MODEL},seed=3"]
    assert len(measured) == 5 * 4 and all(0 <= value <= 1 for value in measured.values())
    assert safe_eraser.scenes.check({3: measured})
