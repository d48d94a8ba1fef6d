from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from demur.data.labelled_sources import read_labelled
from demur.studies import classifier_unlearning_metrics as metrics

PARTS = ("unlearning_accuracy", "retain_accuracy", "test_accuracy", "mia_nonmember_rate", "mia_member_rate")
KNOWN = {
    "class original": (0.0, 1.0, 0.99, 0.0, 0.85),
    "class retrained": (1.0, 1.0, 0.98, 1.0, 0.06),
    "class again": (1.0, 1.0, 0.98, 1.0, 0.06),
    "class fine-tuned": (0.02, 1.0, 0.99, 0.1, 0.5),
    "random original": (0.0, 1.0, 0.99, 0.0, 0.8),
    "random retrained": (0.03, 1.0, 0.98, 0.1, 0.7),
    "random again": (0.04, 1.0, 0.98, 0.1, 0.7),
    "random fine-tuned": (0.01, 1.0, 0.99, 0.02, 0.8),
}


def _row() -> dict[str, float]:
    row = {f"{name} {part}": v for name, values in KNOWN.items() for part, v in zip(PARTS, values, strict=True)}
    row |= {f"{name} average gap": 0.01 if "again" in name else 0.5 for name in KNOWN}
    return row | {f"{name} sides exchanged": 1 - values[-1] for name, values in KNOWN.items()}


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ({}, 0),
        ({"class retrained mia_member_rate": 0.5}, 1),
        ({"class original sides exchanged": 0.9}, 1),
        ({"class fine-tuned unlearning_accuracy": 0.2}, 1),
        ({"class retrained unlearning_accuracy": 0.9}, 1),
        ({"random retrained mia_nonmember_rate": 0.9}, 1),
        ({"random retrained unlearning_accuracy": 0.2}, 1),
        ({"class again average gap": 0.2}, 1),
    ],
    ids=str,
)
def test_every_claim_about_single_models_can_fail_on_one_seed(change: dict[str, float], broken: int) -> None:
    table = pd.DataFrame.from_dict({1: _row(), 2: {**_row(), **change}}, orient="index")
    assert [claim.holds for claim in metrics.digits_claims(table)].count(False) == broken


@pytest.mark.parametrize(
    ("change", "broken"),
    [({}, 0), ({"original": 0.7}, 1), ({"oracle": 0.6}, 1), ({"oracle": 0.4}, 1), ({"pooled original": 0.85}, 1)],
    ids=str,
)
def test_every_claim_about_populations_can_fail_on_one_seed(change: dict[str, float], broken: int) -> None:
    row = {"original": 0.9, "oracle": 0.52, "pooled original": 0.55, "pooled oracle": 0.5}
    row |= {"original at 1 %": 0.4, "oracle at 1 %": 0.01}
    table = pd.DataFrame.from_dict({1: row, 2: {**row, **change}}, orient="index")
    assert [claim.holds for claim in metrics.ensembles_claims(table)].count(False) == broken


def test_the_pictures_to_forget_are_near_ones_of_one_class() -> None:
    data = read_labelled("digits:train[0:300]")
    split = metrics.close_ones(data, 1)
    assert len(split.forget) == metrics.FORGOTTEN and len(split.retain) == 300 - metrics.FORGOTTEN
    assert len(split.forget.labels.unique()) == 1
    flat = split.forget.batch()[0].flatten(1)
    others = split.retain.subset((split.retain.labels == split.forget.labels[0]).nonzero()[:, 0]).batch()[0].flatten(1)
    reach = (flat[None] - flat[:, None]).norm(dim=2).max(0).values.min()
    assert reach < (others[None] - flat[:, None]).norm(dim=2).max()


def test_a_pooled_attack_is_blind_where_rows_differ_more_than_models_do() -> None:
    draw = np.random.default_rng(0)
    places = draw.normal(0, 30, 40)
    unlearned, unseen = draw.normal(places + 3, 1, (60, 40)), draw.normal(places, 1, (60, 40))
    assert metrics.pooled(unlearned, unseen) < 0.6


def test_it_measures_what_its_claims_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DEMUR_CACHE", str(tmp_path))
    monkeypatch.setattr(metrics, "EPOCHS", 1)
    monkeypatch.setattr(metrics, "MODELS", 12)
    monkeypatch.setattr(metrics, "ROWS", 200)
    monkeypatch.setitem(metrics.FINE_TUNE, "epochs", 1)
    monkeypatch.setitem(metrics.POPULATION, "epochs", 1)
    read = read_labelled
    monkeypatch.setattr(
        metrics, "read_labelled", lambda name, seed=0: read(f"{name.partition('[')[0]}[0:200]", seed=seed)
    )
    for part in (metrics.digits, metrics.ensembles):
        assert part.check({1: part(1)})
