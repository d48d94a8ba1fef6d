from __future__ import annotations

import math

import pandas as pd
import pytest

from demur.studies import guard
from demur.studies.guard import distinct_pairs, recall, spans

SIDES = ("before", "guard", "refuse", "literal", "gold", "NPO+GD", "spans", "ratio bug", "no spaces", "threshold 1.01")


def verdicts(change: dict[str, float]) -> dict[str, bool]:
    values = {f"{side} {what}": 0.2 for side in SIDES for what in ("recall", "leaks", "distinct")}
    values |= {f"{side} same": 1.0 for side in ("guard", "gold", "NPO+GD", "ratio bug")}
    values |= {"auc": 0.97, "auc half both": 0.96, "auc half state": 0.8, "auc half words": 0.9, "auc unseen": 0.9}
    values |= {"threshold 1.01, 7 beams recall": 0.85, "flagged paraphrases": 0.8}
    values |= {"flagged kept paraphrases": 0.1, "before recall": 0.99, "guard leaks": 0.0}
    values |= {"threshold 1.01 recall": 0.9, "ratio bug recall": 0.02}
    table = pd.DataFrame.from_dict({1: values, 2: {**values, **change}}, orient="index")
    return {claim.text: claim.holds for claim in guard.guard_claims(table)}


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ({}, 0),
        ({"before recall": 0.8}, 1),
        ({"auc": 0.94}, 1),
        ({"auc half both": 0.94}, 1),
        ({"guard recall": 0.46}, 1),
        ({"guard leaks": 0.025}, 1),
        ({"guard same": 0.96}, 1),
        ({"no spaces leaks": 0.0}, 1),
        ({"threshold 1.01 recall": 0.89}, 1),
        ({"ratio bug recall": 0.19}, 1),
    ],
    ids=str,
)
def test_every_claim_can_fail_on_one_seed(change: dict[str, float], broken: int):
    assert sum(not holds for holds in verdicts(change).values()) == broken


def test_distinct_pairs_of_a_worked_example():
    assert distinct_pairs(["a b a b", "a b c"]) == pytest.approx(3 / 5)
    assert distinct_pairs(["a"]) == 0


def test_recall_is_the_share_of_the_truth_that_is_repeated():
    assert recall(["one two three four"], ["one two"]) == pytest.approx(0.5)


def test_spans_are_runs_of_five_words():
    assert spans("", "a b c d e f") == ["a b c d e", "b c d e f"] and spans("", "a b") == ["a b"]


def test_the_measurements_are_those_that_the_claims_read(quick_authors: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(guard, "LONGEST", 6)
    monkeypatch.setattr(guard, "GENERAL", 6)
    measured = guard.guard(1)
    assert all(math.isfinite(value) for value in measured.values())
    assert measured["guard leaks"] == 0
    assert guard.guard.check({1: measured})
