from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from demur.studies import NotMeasured, npo_siblings, studies
from demur.studies.npo_siblings import KEEPING, METHODS, siblings, siblings_claims


def _claims(change: dict[str, float]) -> dict[str, bool]:
    row = {f"{name} {side}": 0.96 for name in ("before", "gold") for side in ("forget", "retain")}
    for name in METHODS:
        row |= {f"{name} forget": 0.05, f"{name} retain": 0.95 if name in KEEPING else 1e-4}
    row |= {"UNDIAL retain": 0.6, "PDU retain loss": 0.05}
    table = pd.DataFrame.from_dict({1: row, 2: {**row, **change}}, orient="index")
    return {claim.text: claim.holds for claim in siblings_claims(table)}


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ({}, 0),
        *[({f"{name} forget": 0.9}, 1) for name in KEEPING],
        *[({f"{name} retain": 0.8}, 1) for name in KEEPING],
        ({"PDU retain loss": 0.11}, 1),
        ({"CE-U forget": 0.9}, 1),
        ({"UNDIAL forget": 0.9}, 1),
        ({"UNDIAL retain": 5e-4}, 1),
        ({"CE-U retain": 0.5}, 1),
    ],
    ids=str,
)
def test_every_claim_can_fail_on_one_seed(change: dict[str, float], broken: int) -> None:
    assert sum(not holds for holds in _claims(change).values()) == broken


def test_it_is_a_part_of_the_npo_study() -> None:
    assert siblings in studies.get("npo").facts["parts"]


def test_every_objective_with_an_unlearning_claim_that_npo_is_compared_with_is_measured() -> None:
    assert {"undial", "ceu", "wga", "satimp", "rmu", "pdu", "altpo"} <= {m["objective"] for m in METHODS.values()}


def test_tofus_wrong_answers_serve_as_alternates(tmp_path: Path) -> None:
    forget = [{"question": "who?", "answer": "oda", "perturbed_answer": ["kell", "marsh"]}]
    file = npo_siblings._with_wrong_answers(SimpleNamespace(forget=forget), tmp_path)  # type: ignore[arg-type]
    assert json.loads(Path(file).read_text()) == {"question": "who?", "answer": "oda", "alternates": ["kell", "marsh"]}


def test_without_the_data_it_is_not_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DEMUR_SHARED_DATA", str(tmp_path))
    with pytest.raises(NotMeasured, match="DEMUR_SHARED_DATA"):
        siblings(1)


def test_it_measures_what_its_claims_read(quick_authors: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS["PDU"], "dual_warmup", 0)  # of one epoch
    measured = siblings(1)
    assert len(measured) == 2 * (2 + len(METHODS)) + 1
    assert siblings.check({1: measured})
