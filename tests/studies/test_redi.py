from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from demur.studies import redi

ARMS = ("start", "α=0", "α=0.5", "α=0.8", "α=1", "β=0.01", "β=0.1", "α=1, low rate", "sign, α=0.8")


def test_traces_are_running_sums_and_wrong_ones_stay_off_from_a_step_on() -> None:
    right, wrong = redi.make_pairs(200, np.random.default_rng(0))
    first_slips = set()
    for good, bad in zip(right, wrong, strict=True):
        digits, sums = good.input_ids[: redi.DIGITS], good.label_ids[:-1]
        assert sums == [sum(digits[: i + 1]) % 10 for i in range(redi.DIGITS)]
        assert bad.input_ids[: good.prompt_length] == good.input_ids[: good.prompt_length]
        off = {(b - g) % 10 for g, b in zip(sums, bad.label_ids[:-1], strict=True)} - {0}
        assert len(off) == 1
        first_slips.add(next(i for i, (g, b) in enumerate(zip(sums, bad.label_ids, strict=False)) if g != b))
    assert first_slips == set(range(redi.DIGITS))


def _held(change: dict[str, float]) -> list[bool]:
    values = {"accuracy": 0.7, "chosen": -0.3, "rejected": -3.0}
    row = {f"{arm} {what}": v for arm in ARMS for what, v in values.items()}
    row |= {"start rejected": -1.0, "α=0 chosen": -0.1, "α=0.5 chosen": -0.4, "α=0.8 chosen": -0.8, "α=1 chosen": -1.5}
    table = pd.DataFrame.from_dict({1: row, 2: {**row, **change}}, orient="index")
    return [claim.holds for claim in redi.claims(table)]


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ({}, 0),
        ({"α=1 chosen": -0.9}, 1),
        ({"α=0.5 chosen": -0.05}, 1),
        ({"α=1, low rate accuracy": 0.5}, 1),
        ({"α=0.5 rejected": -0.5}, 1),
    ],
    ids=str,
)
def test_every_claim_can_fail_on_one_seed(change: dict[str, float], broken: int) -> None:
    assert _held(change).count(False) == broken


def test_it_measures_what_its_claims_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PROBLEMS": 40, "FRESH": 8, "WIDTH": 16, "LEARN_STEPS": 1, "STEPS": 1}.items():
        monkeypatch.setattr(redi, name, value)
    measured = redi.running_sums(1)
    assert {f"{arm} chosen" for arm in ARMS} <= set(measured)
    assert redi.running_sums.check({1: measured})
