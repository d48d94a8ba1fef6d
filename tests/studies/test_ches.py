from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from demur.studies import ches

VALUES = {f"{by} {where}": 0.0 for by in ("CHES", "edit distance", "length difference") for where in ches.GROUPS}
VALUES |= {f"{name} displaced": 0.5 for name in VALUES}
VALUES |= {"CHES lowest": 2.5, "CHES highest": -4.0, "CHES lowest displaced": 0.1, "CHES highest displaced": 0.8}
VALUES |= {"length by CHES": -0.1, "length by uncentred": 0.9, "within a kind": 0.1}


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ({}, 0),
        ({"CHES lowest": 0.9}, 1),
        ({"CHES highest": -1.9}, 1),
        ({"CHES highest displaced": 0.4}, 1),
        ({"edit distance lowest": 3.4}, 1),
        ({"edit distance highest": 3.4}, 1),
        ({"length by uncentred": 0.1}, 1),
        ({"within a kind": -0.8}, 1),
        ({"CHES lowest": -4.0, "CHES highest": 2.5}, 2),  # the sign turned
    ],
    ids=str,
)
def test_every_claim_can_fail_on_one_seed(change: dict[str, float], broken: int) -> None:
    table = pd.DataFrame.from_dict({1: VALUES, 2: {**VALUES, **change}}, orient="index")
    assert [claim.holds for claim in ches.claims(table)].count(False) == broken


def test_it_measures_what_its_claims_read(shared_data: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEMUR_SHARED_DATA", str(shared_data("tinyshakespeare").parent))
    small = {"DRAWS": 1, "PAIRS": 12, "GROUP": 3, "STEPS": 2, "LEARN": {"width": 16, "steps": 2}}
    for name, value in {**small, "ALIKE": {"pairs": 3, "length": 8, "changes": 1}}.items():
        monkeypatch.setattr(ches, name, value)
    measured = ches.shakespeare_pairs(1)
    assert set(measured) == set(VALUES)
    assert ches.shakespeare_pairs.check({1: measured})
