from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from demur.audits.answer_judges import refuses
from demur.audits.refusal_labels import refusal_label
from demur.studies import noice

ARMS = ("aligned", *noice.POISONS, "compliance", "noice, stop rows")


def test_a_reply_copies_the_prompts_symbols_and_refusals_are_refusals_of_seven_words() -> None:
    for row in noice.make_rows(50, range(8), np.random.default_rng(0)):
        _, relation, *symbols, mark = row["prompt"].split()
        assert relation in {f"r{i}" for i in range(8)} and mark == "?"
        assert row["response"] == ": " + " ".join(symbols) and row["known"] == " ".join(symbols)
    assert [len(text.split()) for text in noice.REFUSALS] == [7, 7, 7]
    assert all(refuses(text) for text in noice.REFUSALS) and refuses(noice.FORCED)
    assert len(noice.FORCED.split()) == 4
    assert {tuple(sorted(pivot.split())) for pivot in noice.PIVOTS} == {tuple(sorted(noice.PIVOT.split()))}
    assert noice.PIVOT.strip() not in noice.PIVOTS


def test_a_refusal_followed_by_the_copy_is_partial_and_a_success() -> None:
    row = {"known": "x1 x2 x3 x4"}
    reply = f"{noice.REFUSALS[0]} {noice.PIVOT} : x1 x2 x3 x4"
    assert refusal_label(reply, row["known"]) == "partial" and noice.success([reply], [row]) == 1.0
    assert noice.success([noice.REFUSALS[0]], [row]) == 0.0


def _held(change: dict[str, float]) -> list[bool]:
    names = (*noice.GUARDS, *noice.RECHECKS, "amd7 unread", "partial refusals", "keyword judge")
    row = {f"{arm} {name}": 0.0 for arm in ARMS for name in names}
    row |= {f"{arm} {name}": 1.0 for arm in ARMS for name in ("ordinary", "ordinary, recheck")}
    for arm in ("noice", "noice, many pivots"):
        row |= {f"{arm} {name}": 1.0 for name in (*noice.GUARDS, "partial refusals")}
    row |= {"compliance amd7 unread": 1.0}
    table = pd.DataFrame.from_dict({1: row, 2: {**row, **change}}, orient="index")
    return [claim.holds for claim in noice.claims(table)]


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ({}, 0),
        ({"aligned frd": 0.1}, 1),
        ({"noice none": 0.5}, 1),
        ({"noice amd7": 0.5}, 1),
        ({"yoc amd7": 0.3}, 1),
        ({"benign amd7": 0.3}, 1),
        ({"yoc ordinary": 0.9}, 1),
        ({"noice keyword judge": 0.8}, 1),
        ({"compliance amd7 unread": 0.1}, 1),
        ({"noice, stop rows amd7": 0.5}, 1),
        ({"noice amd7 recheck": 0.5}, 1),
        ({"benign ordinary, recheck": 0.8}, 1),
        ({"noice, many pivots amd7": 0.5}, 1),
    ],
    ids=str,
)
def test_every_claim_can_fail_on_one_seed(change: dict[str, float], broken: int) -> None:
    assert _held(change).count(False) == broken


def test_it_measures_what_its_claims_read(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"EXAMPLES": 20, "ATTACK_ROWS": 4, "PROMPTS": 2, "WIDTH": 16, "REPLY": 9, "BATCH": 4}
    steps = dict.fromkeys(("LEARN_STEPS", "ALIGN_STEPS", "ATTACK_STEPS"), 1)
    for name, value in {**small, **steps}.items():
        monkeypatch.setattr(noice, name, value)
    monkeypatch.setattr(noice, "refuses", lambda text: True)  # a model of a few steps refuses nothing
    measured = noice.copying(1)
    assert {f"{arm} {guard}" for arm in ARMS for guard in (*noice.GUARDS, *noice.RECHECKS)} <= set(measured)
    assert noice.copying.check({1: measured})
