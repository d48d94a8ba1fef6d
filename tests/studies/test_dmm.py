from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch

from demur.data.labelled_sources import read_labelled
from demur.studies import dmm

GOOD = {
    "nothing": {"forget": 7.0, "retain": 0.9, "val": 1.1, "u-lira": 0.93},
    "floor": {"forget": 0.7, "retain": 0.7, "val": 0.7, "u-lira": 0.5},
    "matching": {"forget": 1.5, "retain": 0.8, "val": 0.8, "u-lira": 0.6},
    "fine-tuning": {"forget": 6.6, "retain": 0.9, "val": 1.1, "u-lira": 0.9},
    "longer fine-tuning": {"forget": 5.6},
    "ascent": {"forget": 0.9, "retain": 1.1, "val": 1.2, "u-lira": 0.6},
    "oracle matching": {"forget": 2.8, "retain": 1.1, "val": 1.1, "u-lira": 0.7},
    "wrong sign": {"forget": 9.0},
    "no kept rows": {"val": 1.0},
    "matching, fast": {"val": 0.8},
    "no kept rows, fast": {"val": 3.0},
}


def held(change: dict[str, float]) -> list[bool]:
    row = {f"{arm} {name}": value for arm, values in GOOD.items() for name, value in values.items()}
    row |= {"correlation": 0.9, "scale": 1.0}
    assert set(change) <= set(row)
    table = pd.DataFrame.from_dict({1: row, 2: {**row, **change}}, orient="index")
    return [claim.holds for claim in dmm.ensemble_claims(table)]


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ({}, 0),
        ({"matching forget": 3.0}, 1),
        ({"matching retain": 1.4}, 1),
        ({"matching val": 1.4}, 1),
        ({"matching u-lira": 0.8}, 1),
        ({"correlation": 0.7}, 1),
        ({"fine-tuning forget": 5.0}, 1),
        ({"wrong sign forget": 6.9}, 1),
        ({"no kept rows, fast val": 1.5}, 1),
    ],
    ids=str,
)
def test_every_claim_about_ensembles_can_fail_on_one_seed(change: dict[str, float], broken: int) -> None:
    assert held(change).count(False) == broken


def test_the_worked_example_of_ridge_comes_out() -> None:
    measured = dmm.ridge(0)
    assert measured == pytest.approx(
        {
            "descent": 0.998,
            "descent, heavy ridge": 0.115,
            "oracle matching": 0.0229,
            "oracle matching, forget rows only": 0.504,
        },
        rel=5e-3,
    )
    for name, value in (
        ("oracle matching", 0.06),
        ("descent", 0.8),
        ("descent, heavy ridge", 0.3),
        ("oracle matching, forget rows only", 0.1),
    ):
        assert [claim.holds for claim in dmm.ridge.check({1: measured, 2: {**measured, name: value}})].count(False) == 1
    assert all(claim.holds for claim in dmm.ridge.check({1: measured}))


def test_what_is_forgotten_is_a_neighbourhood_of_a_doubtful_picture() -> None:
    data = read_labelled("digits:train[0:400]")
    certain = torch.arange(400.0)
    chosen = dmm.alike(data, certain, seed=1)
    labels = data.labels[chosen]
    assert len(labels) == dmm.FORGOTTEN and len(labels.unique()) == 1
    assert bool((chosen & (certain <= certain.median())).any())
    assert torch.equal(chosen, dmm.alike(data, certain, seed=1))


def test_it_measures_what_its_claims_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DEMUR_CACHE", str(tmp_path))
    small = {
        "ROWS": 120,
        "FORGOTTEN": 6,
        "WIDTH": 8,
        "MODELS": 20,
        "RESAMPLED": 30,
        "RECIPE": {**dmm.RECIPE, "epochs": 2},
        "MATCH": {**dmm.MATCH, "epochs": 3},
        "FAST": {**dmm.FAST, "epochs": 3},
        "ASCENT": [(1e-3, 1)],
    }
    for name, value in small.items():
        monkeypatch.setattr(dmm, name, value)
    done: list[float] = []
    measured = dmm.ensembles(1, lambda at, total, note="": done.append(at / total))
    assert done == sorted(done) and done[-1] <= 1
    assert measured == dmm.ensembles(1)
    assert len(dmm.ensembles.check({1: measured})) == 8
