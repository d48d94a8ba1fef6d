from __future__ import annotations

from typing import Any

import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from demur.data import dataset_from_rows, derta_rows
from demur.errors import UsageError

SAFE = "Sorry, that is not allowed."


def plain(*unsafe: str | None, **columns: list[Any]) -> Dataset:
    rows = [
        {"id": f"r{i}", "prompt": f"p{i}", "response": "Here you go." if text is None else SAFE}
        | {"unsafe_response": text}
        | {name: column[i] for name, column in columns.items()}
        for i, text in enumerate(unsafe)
    ]
    return dataset_from_rows(rows)


def of_kind(rows: Dataset, kind: str) -> list[dict[str, Any]]:
    return [row for row in rows if row["kind"] == kind]


def test_each_triple_gives_one_instance_of_each_kind_and_helpful_rows_stay_as_they_are() -> None:
    rows = derta_rows(plain("a b c d e", None, "f g h i"), seed=3)
    assert [row["kind"] for row in rows] == ["helpful", "prefix", "prefix", "rto", "rto"]
    (helpful,) = of_kind(rows, "helpful")
    assert helpful["response"] == "Here you go." and helpful["target"] is None and helpful["prefill"] is None
    assert [(row["response"], row["target"], row["target_share"]) for row in of_kind(rows, "rto")] == [
        ("a b c d e", "Sorry", None),
        ("f g h i", "Sorry", None),
    ]
    assert [row["response"] for row in of_kind(rows, "prefix")] == [SAFE, SAFE]
    assert len(set(rows["id"][:])) == len(rows)


def test_the_refusal_word_is_what_most_refusals_begin_with_unless_it_is_given() -> None:
    rows = plain(*["a b c d"] * 3, None)
    said = ["I cannot.", "“I’m sorry", "Sorry, no.", "Sorry I am."]
    rows = rows.remove_columns("response").add_column("response", said)
    assert {row["target"] for row in of_kind(derta_rows(rows), "rto")} == {"I"}  # helpful rows have no say
    assert {row["target"] for row in of_kind(derta_rows(rows, refusal_token="Sorry"), "rto")} == {"Sorry"}
    with pytest.raises(UsageError, match="nothing to refuse with"):
        derta_rows(rows.remove_columns("response").add_column("response", ["…"] * 4))


@given(st.lists(st.integers(3, 12), min_size=1, max_size=12), st.integers(0, 99))
def test_a_prefix_is_the_beginning_of_its_reply_and_leaves_two_words_at_least(lengths: list[int], seed: int) -> None:
    replies = [" ".join(f"w{n}" for n in range(length)) for length in lengths]
    rows = of_kind(derta_rows(plain(*replies), variant="prefix", seed=seed), "prefix")
    for number, (row, reply) in enumerate(zip(rows, replies, strict=True)):
        if number % 3 == 0:
            assert row["prefill"] is None
        else:
            assert reply.startswith(row["prefill"]) and row["prefill"].endswith(" ")
            assert 1 <= len(row["prefill"].split()) <= len(reply.split()) - 2


def test_a_reply_of_three_words_is_always_cut_after_the_first_and_shorter_ones_give_no_prefix() -> None:
    rows = derta_rows(plain(*["a b c"] * 20), variant="prefix", zero_prefix_every=0)
    assert {row["prefill"] for row in rows} == {"a "}
    assert not len(derta_rows(plain("a b"), variant="prefix", zero_prefix_every=0))


def test_with_every_prefix_empty_and_no_transition_rows_it_is_plain_safety_tuning() -> None:
    given = plain("a b c d", None, "e f g h")
    ours = derta_rows(given, variant="prefix", zero_prefix_every=1)
    vanilla = derta_rows(given, variant="vanilla")
    same = ("prompt", "response", "prefill", "target")
    assert [[row[c] for c in same] for row in ours] == [[row[c] for c in same] for row in vanilla]


def test_counts_take_the_triples_in_turn() -> None:
    rows = derta_rows(plain("a b c d", "e f g h"), n_rto=5, n_prefix=3)
    assert len(of_kind(rows, "rto")) == 5 and len(of_kind(rows, "prefix")) == 3
    assert [row["prompt"] for row in of_kind(rows, "rto")] == ["p0", "p1", "p0", "p1", "p0"]
    assert {row["kind"] for row in derta_rows(plain("a b c d"), variant="rto")} == {"vanilla", "rto"}


def test_the_same_seed_gives_the_same_rows_and_another_one_other_prefixes() -> None:
    given = plain(*[" ".join(map(str, range(30)))] * 9)
    assert derta_rows(given, seed=1).to_list() == derta_rows(given, seed=1).to_list()
    assert derta_rows(given, seed=1).to_list() != derta_rows(given, seed=2).to_list()


def test_prefixes_can_be_counted_in_pieces_of_a_tokenizer() -> None:
    rows = derta_rows(plain("abcdef"), variant="prefix", prefix_unit="token", zero_prefix_every=0, pieces=list)
    (row,) = rows
    assert "abcdef".startswith(row["prefill"].rstrip()) and 1 <= len(row["prefill"].rstrip()) <= 4


def test_the_label_says_what_is_to_be_refused() -> None:
    rows = derta_rows(plain("a b c d", "e f g h", label=["refuse", "comply"]), variant="vanilla")
    assert [(row["kind"], row["prompt"]) for row in rows] == [("helpful", "p1"), ("vanilla", "p0")]
    with pytest.raises(UsageError, match="'r1' is labelled refuse"):
        derta_rows(plain("a b c d", None, label=["refuse", "refuse"]))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rto_keep_ratio": 0.0}, "above 0"),
        ({"rto_keep_ratio": 1.5}, "at most 1"),
        ({"variant": "all"}, "variant must be"),
        ({"prefix_unit": "token"}, "tokenizer"),
        ({"n_rto": 0}, "at least 1"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        derta_rows(plain("a b c d"), **options)


def test_rows_without_anything_to_refuse_are_refused() -> None:
    with pytest.raises(UsageError, match="nothing to refuse"):
        derta_rows(plain(None, None))
    with pytest.raises(UsageError, match="no column 'unsafe_response'"):
        derta_rows(plain("a").remove_columns("unsafe_response"))
