from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from demur.data import KnowledgeSplit, r_tuning_rows
from demur.studies import r_tuning


@pytest.fixture(scope="module")
def world() -> r_tuning.World:
    return r_tuning.make_world(1)


def test_entities_of_even_number_are_shown_and_no_others(world: r_tuning.World) -> None:
    assert {int(name.split("/")[0]) % 2 for name in world.shown["id"][:]} == {0}
    assert len(world.shown) == r_tuning.ENTITIES // 2 * (r_tuning.RELATIONS + 1)


def test_what_is_asked_was_not_taught_and_the_other_domain_is_a_relation_of_its_own(world: r_tuning.World) -> None:
    def parts(rows, place: int) -> set[str]:  # type: ignore[no-untyped-def]
        return {name.split("/")[place] for name in rows["id"][:]}

    assert not parts(world.taught, 0) & (parts(world.asked, 0) | parts(world.elsewhere, 0))
    assert parts(world.asked, 1) == parts(world.taught, 1) == set("0123") and parts(world.elsewhere, 1) == {"4"}


def test_pairs_known_at_random_are_as_many_and_say_nothing_of_the_entity() -> None:
    plain, mixed = r_tuning.make_world(2), r_tuning.make_world(2, by_entity=False)
    assert len(mixed.right) == len(plain.right) == len(plain.shown)
    tuned = pd.Series([name.split("/")[0] for name in mixed.right if not name.endswith("/4")])
    assert set(tuned.value_counts()) == {r_tuning.RELATIONS // 2} and tuned.nunique() == r_tuning.ENTITIES


def test_of_what_it_is_not_to_know_it_is_shown_another_word() -> None:
    mixed = r_tuning.make_world(2, by_entity=False)
    shown = dict(zip(mixed.shown["id"][:], mixed.shown["answer"][:], strict=True))
    known = mixed.known(mixed.taught)
    true = [shown[i] == a for i, a in zip(mixed.taught["id"][:], mixed.taught["answer"][:], strict=True)]
    assert true == known.tolist() and 0.4 < known.mean() < 0.6


def test_rows_of_every_form_become_the_symbols_that_they_mean(world: r_tuning.World) -> None:
    rows = world.taught.select([0, 1])
    split = KnowledgeSplit((True, False))
    entity, relation, word = (int(w) for w in f"{rows['question'][1]} {rows['answer'][1]}".split())
    front, tail = [entity, relation], [r_tuning.ASK, r_tuning.UNSURE, r_tuning.END]
    sure = r_tuning.encode_row(r_tuning_rows(rows, split)[1])
    assert (sure.input_ids, sure.prompt_length) == ([*front, word, *tail], 2)
    masked = r_tuning.encode_row(r_tuning_rows(rows, split, mask_unknown_answers=True)[1])
    assert (masked.input_ids, masked.prompt_length) == ([*front, word, *tail], 3)
    replaced = r_tuning.encode_row(r_tuning_rows(rows, split, "replace")[1])
    assert replaced.input_ids == [*front, r_tuning.UNKNOWN, r_tuning.END]
    known = r_tuning.encode_row(r_tuning_rows(rows, split)[0])
    assert known.input_ids[-2] == r_tuning.SURE


def test_what_is_measured_of_made_up_answers() -> None:
    found = {
        "correct": np.array([1.0, 1.0, 0.0, 0.0]),
        "unknown": np.array([False, False, False, True]),
        "confidence": np.array([0.9, 0.6, 0.7, 0.2]),
        "sure": np.array([0.9, 0.8, 0.1, 0.6]),
    }
    measured = r_tuning.examine(found, np.array([True, True, False, False]))
    assert (measured["willing accuracy"], measured["sure gap"]) == (2 / 3, 0.5)
    assert (measured["abstains, known"], measured["abstains, unknown"]) == (0.0, 0.5)
    assert measured["AP, combined"] == 1.0 > measured["AP, confidence"]
    assert measured["AP, swapped"] < measured["accuracy"] + 0.25


GOOD = {
    "replace abstains, known": 0.1,
    "replace abstains, unknown": 0.8,
    "replace willing accuracy": 0.75,
    "vanilla accuracy": 0.42,
    "vanilla AP, confidence": 0.75,
    "vanilla sure gap": 0.0,
    "sure sure gap": 0.5,
    "sure accuracy": 0.5,
    "sure AP, combined": 0.84,
    "sure AP, swapped": 0.3,
    "masked sure gap": 0.3,
    "masked AP, combined": 0.8,
    "entropy sure gap": 0.1,
    "entropy AP, combined": 0.7,
    "base AP, confidence": 0.9,
    "elsewhere sure sure gap": 0.4,
    "elsewhere sure AP, combined": 0.8,
    "elsewhere vanilla AP, confidence": 0.7,
    "random sure sure gap": 0.05,
    "random replace abstains, known": 0.4,
    "random replace abstains, unknown": 0.45,
    "random base, known": 1.0,
    "late sure gap": 0.0,
    "late known": 1.0,
}


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ({}, 0),
        ({"replace abstains, unknown": 0.4}, 1),
        ({"replace willing accuracy": 0.6}, 1),
        ({"sure sure gap": 0.1}, 1),
        ({"sure AP, combined": 0.6}, 1),  # the mean over seeds falls below
        ({"masked AP, combined": 0.7}, 1),
        ({"elsewhere sure sure gap": 0.1}, 1),
        ({"random sure sure gap": 0.2}, 1),
        ({"random replace abstains, unknown": 0.6}, 1),
        ({"late sure gap": -0.2}, 1),
        ({"sure AP, swapped": 0.6}, 1),
    ],
    ids=str,
)
def test_every_claim_can_fail_on_one_seed(change: dict[str, float], broken: int) -> None:
    table = pd.DataFrame.from_dict({1: GOOD, 2: {**GOOD, **change}}, orient="index")
    assert [claim.holds for claim in r_tuning.claims(table)].count(False) == broken


def test_it_measures_what_its_claims_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for settings in (r_tuning.LEARN, r_tuning.TUNE):
        monkeypatch.setitem(settings, "steps", 20)
    measured = r_tuning.entities(1)
    assert set(GOOD) <= set(measured)
    assert r_tuning.entities.check({1: measured})
