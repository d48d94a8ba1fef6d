from __future__ import annotations

import pytest

from demur.audits import RemovalData, RemovalSettings
from demur.data import dataset_from_rows
from demur.errors import UnknownNameError, UsageError


def rows(*facts: tuple[str, str, str], **more):
    return dataset_from_rows(
        [{"id": f"r{i}", "question": q, "answer": a, "person": who, **more} for i, (who, q, a) in enumerate(facts)]
    )


FACTS = [
    (who, f"what is {thing} of {who}?", f"{thing} of {who} is x{n}")
    for who in ("ann", "bob")
    for n, thing in enumerate(("pet", "town", "book", "coat"))
]


def test_each_entity_has_facts_in_both_halves_and_no_fact_is_in_two():
    data = RemovalData.make(rows(*FACTS))
    for who in ("ann", "bob"):
        of = [f for f in data.facts if f.entity == who]
        assert sum(f.shown for f in of) == sum(not f.shown for f in of) == 2
    assert {f.id for f in data.shown} | {f.id for f in data.measured} == {f.id for f in data.facts}
    assert not {f.question for f in data.shown} & {f.question for f in data.measured}


def test_a_row_that_says_the_same_in_both_halves_is_in_neither():
    twice = [*FACTS, ("ann", "what is PET of  ann?", "new"), ("ann", "and her pet?", "pet of ann is X0")]
    data = RemovalData.make(rows(*twice))
    shown, measured = ({f.question.casefold() for f in half} for half in (data.shown, data.measured))
    answers = [{f.answer.casefold() for f in half} for half in (data.shown, data.measured)]
    assert not shown & measured and not answers[0] & answers[1]
    assert len(data.facts) < len(twice)


def test_siblings_are_other_shown_facts_of_the_same_entity():
    data = RemovalData.make(rows(*FACTS))
    for fact, siblings in zip(data.facts, data.questions.siblings, strict=True):
        assert siblings and all(fact.entity in question and question != fact.question for question, _ in siblings)
        assert all(question in {f.question for f in data.shown} for question, _ in siblings)


def test_rows_with_tofu_s_numbers_are_about_an_author_for_every_twenty():
    table = dataset_from_rows([{"id": str(3960 + i), "question": f"q{i}?", "answer": f"a{i}"} for i in range(40)])
    data = RemovalData.make(table)
    assert [f.entity for f in data.facts] == ["198"] * 20 + ["199"] * 20


def test_the_digest_follows_the_rows():
    one, same = RemovalData.make(rows(*FACTS)), RemovalData.make(rows(*FACTS))
    assert one.digest == same.digest != RemovalData.make(rows(*FACTS[:-1])).digest
    assert one.digest != RemovalData.make(rows(*FACTS), rows(*FACTS[:1])).digest


def test_too_few_facts_and_absent_columns_are_said():
    with pytest.raises(UsageError, match="two forget rows in each half"):
        RemovalData.make(rows(*FACTS[:2]))
    with pytest.raises(UsageError, match="did you mean person"):
        RemovalData.make(rows(*FACTS), settings=RemovalSettings(entity="persn"))


@pytest.mark.parametrize("bad", [{"checks": ("lense",)}, {"seeds": 0}, {"intention": "both"}, {"samples": 0}])
def test_settings_out_of_range_are_refused(bad):
    with pytest.raises((UsageError, UnknownNameError)):
        RemovalSettings(**bad)


def test_a_single_value_stands_for_a_list_of_one():
    assert RemovalSettings(factors=1.0, checks="lens", bits=[4]).bits == (4,)
