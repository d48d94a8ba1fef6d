from __future__ import annotations

import pandas as pd
import pytest
import torch

from demur.data.labelled import Labelled
from demur.data.labelled_sources import read_labelled
from demur.studies import laf

PARTS = {part.name: part for part in (laf.one_digit, laf.part_of_five, laf.wrong_labels)}
ARMS = ("before", "retrained", *laf.ARMS)
SOUND = dict.fromkeys(("forget", "test of the digit"), 0.0)
SOUND |= {"retain": 0.97, "test of the others": 0.96, "test": 0.96, "attack": 0.5}


def _held(part: str, change: dict[str, float]) -> list[bool]:
    row = {f"{arm} {what}": value for arm in ARMS for what, value in SOUND.items()}
    row |= {"first loss only retain": 0.12, "before forget": 1.0, "before test of the digit": 0.98}
    table = pd.DataFrame.from_dict({1: row, 2: {**row, **change}}, orient="index")
    assert PARTS[part]._claims is not None
    return [claim.holds for claim in PARTS[part]._claims(table)]


@pytest.mark.parametrize(
    ("part", "change", "broken"),
    [
        ("class", {}, 0),
        ("class", {"LAF forget": 0.03}, 1),
        ("class", {"LAF test of the digit": 0.03}, 1),
        ("class", {"LAF test of the others": 0.9}, 1),
        ("class", {"first loss only retain": 0.5}, 1),
        ("class", {"LAF attack": 0.7}, 1),
        ("data", {}, 0),
        ("data", {"LAF test": 0.9}, 1),
        ("noise", {}, 0),
        ("noise", {"LAF test": 0.9}, 1),
    ],
    ids=str,
)
def test_every_claim_can_fail_on_one_seed(part: str, change: dict[str, float], broken: int) -> None:
    assert _held(part, change).count(False) == broken


@pytest.mark.parametrize("part", PARTS)
def test_it_measures_what_its_claims_read(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"EPOCHS": 1, "STEPS": 2, "VAE_STEPS": 2, "LABELLED": 10}.items():
        monkeypatch.setattr(laf, name, value)
    monkeypatch.setattr(laf, "read_labelled", lambda source, seed: read_labelled(f"{source}[0:200]", seed=seed))
    measured = PARTS[part](1)
    assert PARTS[part].check({1: measured})


def test_a_share_of_each_class_among_some_is_drawn() -> None:
    labels = torch.arange(10).repeat_interleave(20)
    data = Labelled(torch.zeros(200, 1), labels, tuple("0123456789"))
    split = laf._drawn(data, labels >= 5, 0.4, seed=0)
    assert split.forget.labels.bincount(minlength=10).tolist() == [0] * 5 + [8] * 5
    assert sorted([*split.forget.ids.tolist(), *split.retain.ids.tolist()]) == list(range(200))


def test_the_attack_tells_members_that_are_told_with_more_confidence() -> None:
    class Told:
        def predict(self, data: Labelled) -> torch.Tensor:
            return data.inputs

    def rows(confidence: float, count: int) -> Labelled:
        torch.manual_seed(0)
        logits = torch.randn(count, 10) * 0.01
        logits[:, 0] += confidence
        return Labelled(logits, torch.zeros(count, dtype=torch.long), tuple("0123456789"))

    def accuracy(member: float) -> float:
        split = laf.ForgetSplit(rows(member, 100), rows(5.0, 400), "random")
        return laf.attack_accuracy(Told(), split, rows(1.0, 300), seed=0)  # type: ignore[arg-type]

    assert accuracy(5.0) == 1.0
    assert accuracy(1.0) == 0.5
