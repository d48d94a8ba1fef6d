from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from demur.studies import NotMeasured, preference_logic, shakespeare

VALUES = {"ce": -0.1, "ceunl": -0.1, "funl": -6.0, "uncpo": -6.0, "orpo": -0.9, "cpo": -1.0, "ccpo": -0.8}
VALUES |= {"cfunl": -6.0, "qfunl": -0.3, "cpo, wrong": -0.8}


def _held(change: dict[str, float]) -> list[bool]:
    row = {f"{name} {what}": v for name, v in VALUES.items() for what in ("winner", "loser", "accuracy")}
    row["order broken by"] = 0.0
    table = pd.DataFrame.from_dict({1: row, 2: {**row, **change}}, orient="index")
    return [claim.holds for claim in preference_logic.claims(table)]


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ({}, 0),
        ({"uncpo winner": -1.9}, 1),
        ({"funl winner": 0.0}, 1),
        ({"cfunl winner": 0.0}, 1),
        ({"ce winner": -0.31}, 1),
        ({"ceunl winner": -0.31}, 1),
        ({"cpo winner": -0.81}, 1),
        ({"cpo, wrong winner": -1.0}, 1),
        ({"order broken by": 1e-3}, 1),
    ],
    ids=str,
)
def test_every_claim_can_fail_on_one_seed(change: dict[str, float], broken: int) -> None:
    assert _held(change).count(False) == broken


def test_it_measures_what_its_claims_read(shared_data: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEMUR_SHARED_DATA", str(shared_data("tinyshakespeare").parent))
    for name, value in {"TRAIN": 24, "TEST": 4, "STEPS": 1, "LEARN": {"width": 16, "steps": 2}}.items():
        monkeypatch.setattr(preference_logic, name, value)
    measured = preference_logic.preference_logic(1)
    assert measured["order broken by"] <= 1e-5
    assert measured["cpo, wrong winner"] == pytest.approx(measured["ccpo winner"])
    assert preference_logic.preference_logic.check({1: measured})


def test_without_the_text_it_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEMUR_SHARED_DATA", str(tmp_path))
    with pytest.raises(NotMeasured, match="tinyshakespeare"):
        shakespeare.read_text()
