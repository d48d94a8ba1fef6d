from __future__ import annotations

import pandas as pd
import pytest

from demur.data import derta_rows
from demur.models import encode_rows
from demur.studies import derta

ARMS = ("start", *derta.ARMS, *derta.WRONG)


def test_the_world_asks_each_relation_of_each_subject_once_and_tests_on_subjects_that_it_did_not_show() -> None:
    tables = derta.make_rows(1)
    assert {name: len(rows) for name, rows in tables.items()} == {"ordinary": 360, "shown": 80, "others": 40}
    prompts = [prompt for rows in tables.values() for prompt in rows["prompt"][:]]
    assert len(set(prompts)) == len(prompts) == 480
    assert not {p.split()[2] for p in tables["shown"]["prompt"][:]} & {
        p.split()[2] for p in tables["others"]["prompt"][:]
    }


def test_each_mistake_is_in_the_transition_rows_alone() -> None:
    tables, lm = derta.make_rows(1), derta.new_lm(1)
    right = {
        e.id: e
        for e in encode_rows(lm, derta_rows(derta._joined(tables), variant="rto", refusal_token="sorry", seed=1))
    }
    sorry = lm.tokenizer.convert_tokens_to_ids("sorry")
    for item in derta.spoiled("inputs", lm, tables, 1):
        if item.id.startswith("rto"):
            assert set(item.label_ids) == {sorry} and len(item.label_ids) == derta.LENGTH + 1
        else:
            assert item == right[item.id]
    flagged = {item.id for item in derta.spoiled("inverted", lm, tables, 1) if item.targets}
    assert flagged == set(tables["ordinary"]["id"][:])


def _held(change: dict[str, float]) -> list[bool]:
    row = {f"{arm} asr {k}": 0.0 for arm in ARMS for k in derta.GIVEN} | {f"{arm} ordinary": 1.0 for arm in ARMS}
    row |= {"vanilla asr 4": 0.8, "prefix asr 4": 0.3, "inputs asr 4": 0.6}
    row |= {"inverted ordinary": 0.0}
    table = pd.DataFrame.from_dict({1: row, 2: {**row, **change}}, orient="index")
    return [claim.holds for claim in derta.claims(table)]


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ({}, 0),
        ({"vanilla asr 4": 0.45, "prefix asr 4": 0.1}, 1),
        ({"prefix asr 4": 0.6}, 1),
        ({"both asr 4": 0.2}, 1),
        ({"both ordinary": 0.95}, 1),
        ({"inputs asr 4": 0.0}, 1),
        ({"inverted ordinary": 0.9}, 1),
    ],
    ids=str,
)
def test_every_claim_can_fail_on_one_seed(change: dict[str, float], broken: int) -> None:
    assert _held(change).count(False) == broken


def test_it_measures_what_its_claims_read(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"SUBJECTS": 6, "SHOWN": 4, "WIDTH": 16, "LEARN_STEPS": 1, "STEPS": 1, "WRONG_STEPS": 1, "BATCH": 4}
    for name, value in small.items():
        monkeypatch.setattr(derta, name, value)
    measured = derta.begun_replies(1)
    assert {f"{arm} asr {k}" for arm in ARMS for k in derta.GIVEN} <= set(measured)
    assert derta.begun_replies.check({1: measured})
