from __future__ import annotations

import pandas as pd
import pytest
import torch

from demur.data.labelled_sources import read_labelled
from demur.editing import Importances
from demur.lab.digits import new_resnet
from demur.studies import ssd

ARMS = ("original", "retrained", "fine-tuned", "adaptive", "inverse ratio", "shuffled", "by class")
ARMS += (*(f"α={alpha:g}" for alpha in ssd.ALPHAS), "retain for all, α=2", "retain for all, α=4")


def test_seeds_forget_three_four_and_five() -> None:
    assert [ssd.digit_of(seed) for seed in (1, 2, 3, 4)] == [3, 4, 5, 3]


def test_rows_by_class_and_shuffled_are_the_same_rows() -> None:
    data = read_labelled("digits:train[0:50]")
    for arrange in (ssd.by_class, ssd.shuffled):
        assert sorted(arrange(data).ids.tolist()) == sorted(data.ids.tolist())
    assert ssd.by_class(data).labels.tolist() == sorted(data.labels.tolist())
    assert ssd.shuffled(data).labels.tolist() != data.labels.tolist()


def test_the_slip_lets_selected_weights_grow() -> None:
    train, _ = ssd.splits(3)
    model = new_resnet()
    kept = Importances.measured(model, train.retain.subset(range(400)).joined(train.forget))
    slipped = ssd.upside_down(model, train, kept)
    pairs = zip(slipped.module.parameters(), model.module.parameters(), strict=True)
    grown = torch.cat([(new.abs() - old.abs()).flatten() for new, old in pairs])
    assert (grown >= 0).all() and (grown > 0).any()


def _held(change: dict[str, float]) -> list[bool]:
    row = {f"{arm} {name}": value for arm in ARMS for name, value in zip(ssd.SETS, (0, 1, 0, 0.98), strict=True)}
    row |= {f"{arm} selected": 0.02 for arm in ARMS}
    row |= {"original forget": 1.0, "fine-tuned forget": 1.0, "by class forget": 1.0, "inverse ratio retain test": 0.1}
    row |= {"retain for all, α=2 retain test": 0.7, "changed above the bound": 0}
    row |= {
        f"{way}, digits": share for way, share in (("fixed α", 0.6), ("adaptive", 0.8), ("adaptive, label-free", 1))
    }
    table = pd.DataFrame.from_dict({1: row, 2: {**row, **change}}, orient="index")
    return [claim.holds for claim in ssd.claims(table)]


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ({}, 0),
        ({"α=4 forget": 0.1}, 1),
        ({"α=4 retain test": 0.93}, 1),
        ({"α=4 selected": 0.0}, 1),
        ({"α=4 selected": 0.2}, 1),
        ({"fine-tuned forget": 0.5}, 1),
        ({"changed above the bound": 1}, 1),
        ({"inverse ratio retain test": 0.9}, 1),
        ({"retain for all, α=2 retain test": 0.99}, 1),
        ({"by class forget": 0.0}, 1),
        ({"adaptive, label-free, digits": 0.5}, 1),
    ],
    ids=str,
)
def test_every_claim_can_fail_on_one_seed(change: dict[str, float], broken: int) -> None:
    assert _held(change).count(False) == broken


def test_it_measures_what_its_claims_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"ROWS": "[0:60]", "EPOCHS": 1, "EVERY_DIGIT": (0,), "ALPHAS": (1, 2, 4)}.items():
        monkeypatch.setattr(ssd, name, value)
    measured = ssd.one_digit(1)
    assert 0 < measured["importance held by the digit"] < 1
    assert ssd.one_digit.check({1: measured})
