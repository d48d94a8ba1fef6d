from __future__ import annotations

import pandas as pd
import pytest

from demur.data.labelled import Labelled
from demur.data.labelled_sources import read_labelled
from demur.studies import prototype_relation_distillation as study
from demur.training.continual import parted


def _held(change: dict[str, float]) -> list[bool]:
    values = {"accuracy": 0.7, "forgetting": 0.2, "learned": 0.9, "backward_transfer": -0.2, "of all classes": 0.3}
    row = {f"{arm} {what}": value for arm in (*study.ARMS, study.SHARED, study.LWF) for what, value in values.items()}
    row |= {"PRD accuracy": 0.95, "PRD forgetting": 0.02}
    table = pd.DataFrame.from_dict({1: row, 2: {**row, **change}}, orient="index")
    return [claim.holds for claim in study.claims(table)]


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ({}, 0),
        ({"no distillation accuracy": 0.88}, 1),
        ({"PRD accuracy": 0.89}, 1),
        ({"PRD forgetting": 0.07}, 1),
        ({"no distillation forgetting": 0.01}, 1),
        ({f"{study.SHARED} accuracy": 0.9}, 1),
    ],
    ids=str,
)
def test_every_claim_can_fail_on_one_seed(change: dict[str, float], broken: int) -> None:
    assert _held(change).count(False) == broken


def test_it_measures_what_its_claims_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def few(part: str) -> list[Labelled]:
        return parted(read_labelled(f"digits:{part}[0:100]"), study.CLASSES)

    monkeypatch.setattr(study, "digits", few)
    for name in ("EPOCHS", "FIRST_EPOCHS"):
        monkeypatch.setattr(study, name, 1)
    told: list[str] = []
    measured = study.digits_in_five_tasks(1, lambda done, total, note="": told.append(f"{done}/{total}"))
    assert told[0] == "0/30" and told[-1] == "29/30"
    assert 0 <= measured["PRD accuracy"] <= 1
    assert study.digits_in_five_tasks.check({1: measured})
