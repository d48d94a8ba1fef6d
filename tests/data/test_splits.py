from __future__ import annotations

import re

import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from demur.data import dataset_from_rows, find_overlap, require_disjoint
from demur.errors import UsageError

PAIRS = st.lists(
    st.tuples(st.sampled_from(["a", "A ", "b"]), st.sampled_from(["x", " x", "y"])), min_size=1, max_size=6
)


def rows(pairs: list[tuple[str, str]], prefix: str = "") -> Dataset:
    return dataset_from_rows([{"id": f"{prefix}{i}", "question": q, "answer": a} for i, (q, a) in enumerate(pairs)])


@settings(max_examples=40)
@given(PAIRS, PAIRS)
def test_overlap_is_symmetric_and_equals_brute_force(one: list[tuple[str, str]], two: list[tuple[str, str]]) -> None:
    expected = {
        (f"f{i}", f"r{j}")
        for i, (q, a) in enumerate(one)
        for j, (p, b) in enumerate(two)
        if (q.strip().lower(), a.strip()) == (p.strip().lower(), b.strip())
    }
    found = find_overlap(rows(one, "f"), rows(two, "r"))
    assert len(found) == len(expected)
    assert set(found) == expected
    assert {(b, a) for a, b in find_overlap(rows(two, "r"), rows(one, "f"))} == expected


@settings(max_examples=40)
@given(PAIRS)
def test_every_row_overlaps_with_itself(pairs: list[tuple[str, str]]) -> None:
    assert {(str(i), str(i)) for i in range(len(pairs))} <= set(find_overlap(rows(pairs), rows(pairs)))


def test_case_and_white_space_do_not_hide_an_overlap() -> None:
    assert find_overlap(rows([("Who  IS\nAnn?", "A straße.")]), rows([(" who is ann? ", "a STRASSE.")])) == [("0", "0")]


def test_the_same_question_with_another_answer_is_no_overlap() -> None:
    assert find_overlap(rows([("q", "yes")]), rows([("q", "no"), ("p", "yes")])) == []


def test_overlap_sees_through_naming_and_through_a_single_user_message() -> None:
    chat = dataset_from_rows([{"id": "c", "prompt": [{"role": "user", "content": "q"}], "response": "a"}])
    assert find_overlap(rows([("q", "a")]), chat) == [("0", "c")]
    other = dataset_from_rows([{"id": "c", "prompt": [{"role": "system", "content": "q"}], "response": "a"}])
    assert find_overlap(rows([("q", "a")]), other) == []


def test_shared_rows_are_refused_with_at_most_five_named() -> None:
    pairs = [(f"q{i}", "a") for i in range(7)]
    with pytest.raises(UsageError, match="7 of 7 forget rows") as caught:
        require_disjoint(rows(pairs, "f"), rows([("z", "z"), *pairs], "r"))
    assert re.findall(r"(f\d) \(retain (r\d)\)", str(caught.value)) == [(f"f{i}", f"r{i + 1}") for i in range(5)]
    assert "--allow-overlap" in str(caught.value)


def test_a_forget_row_is_named_once_with_the_first_retain_row_that_equals_it() -> None:
    with pytest.raises(UsageError, match=r"1 of 2 forget rows are also retain rows: id f1 \(retain r0\); take"):
        require_disjoint(rows([("p", "a"), ("q", "a")], "f"), rows([("q", "a"), ("q", "a")], "r"))


def test_shared_rows_pass_when_allowed_and_disjoint_sets_always_pass() -> None:
    require_disjoint(rows([("q", "a")]), rows([("q", "a")]), allow_overlap=True)
    require_disjoint(rows([("q", "a")]), rows([("q", "b")]))
