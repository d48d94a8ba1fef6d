from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demur.data import Example, TofuRow, dataset_from_rows, question_answer, row_texts, rows_hash
from demur.data.rows import Row, check_row, schema_for
from demur.errors import RowError, UsageError

GOOD_EXAMPLE = {"prompt": "Who?", "response": "Ann.", "label": "comply", "category": "people", "split": "train"}
GOOD_TOFU = {"question": "Who?", "answer": "Ann.", "perturbed_answer": ["Bob.", "Cid."]}


@pytest.mark.parametrize(
    ("change", "column", "said"),
    [
        ({"prompt": 3}, "prompt", "not the number 3"),
        ({"prompt": "  "}, "prompt", "is empty"),
        ({"prompt": []}, "prompt", "empty list of chat messages"),
        ({"prompt": [{"role": "user", "content": "Hi"}, {"role": "assistant"}]}, "prompt", "message 2"),
        ({"prompt": [{"role": "user", "content": 5}]}, "prompt", "'content'"),
        ({"prompt": ["Hi"]}, "prompt", "message 1"),
        ({"response": ""}, "response", "is empty"),
        ({"response": ["a"]}, "response", "not a list"),
        ({"response": True}, "response", "the truth value true"),
        ({"label": "deny"}, "label", "comply, refuse or abstain, not 'deny'"),
        ({"label": 1}, "label", "not 1"),
        ({"category": 7}, "category", "must be text"),
        ({"split": {}}, "split", "not an object"),
        ({"meta": "x"}, "meta", "must be an object"),
        ({"id": " "}, "id", "is empty"),
        ({"id": 1.5}, "id", "not the number 1.5"),
    ],
)
def test_a_bad_example_is_refused_by_column(change: dict[str, Any], column: str, said: str) -> None:
    check_row(GOOD_EXAMPLE, Example, file="f.jsonl", line=1)
    with pytest.raises(RowError, match=f"f.jsonl, line 7, column '{column}'") as caught:
        check_row({**GOOD_EXAMPLE, **change}, Example, file="f.jsonl", line=7)
    assert said in str(caught.value)
    assert (caught.value.file, caught.value.line, caught.value.column) == ("f.jsonl", 7, column)


@pytest.mark.parametrize(
    ("change", "column", "said"),
    [
        ({"question": 12}, "question", "must be text, not the number 12"),
        ({"answer": ""}, "answer", "is empty"),
        ({"answer": None}, "answer", "is missing or null"),
        ({"perturbed_answer": []}, "perturbed_answer", "an empty list"),
        ({"perturbed_answer": "Bob."}, "perturbed_answer", "must be a list of texts, not text"),
        ({"perturbed_answer": ["Bob.", None]}, "perturbed_answer", "item 2 must be text, not null"),
        ({"paraphrased_answer": "\n"}, "paraphrased_answer", "is empty"),
        ({"paraphrased_question": 0}, "paraphrased_question", "must be text"),
    ],
)
def test_a_bad_tofu_row_is_refused_by_column(change: dict[str, Any], column: str, said: str) -> None:
    check_row(GOOD_TOFU, TofuRow, file="f", line=1)
    with pytest.raises(RowError) as caught:
        check_row({**GOOD_TOFU, **change}, TofuRow, file="f", line=1)
    assert caught.value.column == column
    assert said in str(caught.value)


def test_rows_keep_columns_that_no_one_documented() -> None:
    row = Example.model_validate({**GOOD_EXAMPLE, "id": 4, "difficulty": 0.5})
    assert row.model_dump()["difficulty"] == 0.5
    assert row.id == "4"


def test_a_missing_column_is_reported_with_the_nearest_one_the_row_has() -> None:
    with pytest.raises(RowError, match="did you mean anwser"):
        check_row({"question": "Who?", "anwser": "Ann."}, TofuRow, file="f", line=1)


def test_a_renamed_column_is_reported_under_the_name_its_source_uses() -> None:
    with pytest.raises(RowError, match="column 'response'"):
        check_row({"question": "Who?", "answer": 1}, TofuRow, file="f", line=1, names={"answer": "response"})


def test_required_columns_must_hold_something_even_where_no_schema_applies() -> None:
    check_row({"text": ""}, None, required=["text"], file="f", line=1)
    with pytest.raises(RowError, match="column 'text'"):
        check_row({"text": None}, None, required=["text"], file="f", line=1)


@pytest.mark.parametrize(
    ("columns", "schema"),
    [
        (["question", "answer", "extra"], TofuRow),
        (["prompt"], Example),
        (["prompt", "response"], Example),
        (["question", "choices", "answer"], None),
        (["text"], None),
    ],
)
def test_the_columns_decide_what_kind_of_row_it_is(columns: list[str], schema: type[Row] | None) -> None:
    assert schema_for(columns) is schema


@pytest.mark.parametrize(("asked", "answered"), [("question", "answer"), ("prompt", "response"), ("prompt", "answer")])
def test_question_answer_takes_either_naming(asked: str, answered: str) -> None:
    rows = dataset_from_rows([{asked: "a?", answered: "a."}, {asked: "b?", answered: "b."}])
    assert question_answer(rows) == (["a?", "b?"], ["a.", "b."])


def test_question_answer_gives_chat_prompts_as_they_are() -> None:
    chat = [{"role": "user", "content": "Hi"}]
    assert question_answer(dataset_from_rows([{"prompt": chat, "response": "Ho"}])) == ([chat], ["Ho"])


def test_question_answer_refuses_unclear_or_absent_columns() -> None:
    both = dataset_from_rows([{"question": "a?", "prompt": "b?", "answer": "c"}])
    with pytest.raises(UsageError, match="both 'question' and 'prompt'"):
        question_answer(both)
    with pytest.raises(UsageError, match="no column 'answer' or 'response'"):
        question_answer(dataset_from_rows([{"question": "a?"}]))
    with pytest.raises(RowError, match="line 2, column 'response'"):
        question_answer(dataset_from_rows([{"prompt": "a", "response": "b"}, {"prompt": "c"}]))


def test_rows_hash_is_the_sha256_of_the_canonical_json_lines() -> None:
    rows = dataset_from_rows([{"id": "9", "b": "é", "a": 1}, {"id": "8", "b": None, "a": 2}])
    expected = hashlib.sha256('{"a": 1, "b": "é"}\n{"a": 2}\n'.encode()).hexdigest()
    assert rows_hash(rows) == expected


@settings(max_examples=40)
@given(st.lists(st.tuples(st.text(), st.text()), min_size=2, max_size=6, unique=True), st.randoms())
def test_rows_hash_sees_order_and_content_but_not_ids_or_column_order(
    pairs: list[tuple[str, str]], random: Any
) -> None:
    rows = [{"question": q, "answer": a} for q, a in pairs]
    same = [{"id": f"x{i}", "answer": a, "question": q, "label": None} for i, (q, a) in enumerate(pairs)]
    assert rows_hash(dataset_from_rows(rows)) == rows_hash(dataset_from_rows(same))
    shuffled = random.sample(rows, len(rows))
    assert (rows_hash(dataset_from_rows(rows)) == rows_hash(dataset_from_rows(shuffled))) == (rows == shuffled)
    changed = [{**rows[0], "answer": rows[0]["answer"] + "!"}, *rows[1:]]
    assert rows_hash(dataset_from_rows(rows)) != rows_hash(dataset_from_rows(changed))


def test_texts_of_rows_are_those_of_every_column_and_list_but_nothing_else() -> None:
    dataset = dataset_from_rows(
        [{"question": "q", "n": 3, "wrong": ["a", "b"]}, {"question": None, "n": 4, "wrong": []}]
    )
    assert sorted(row_texts(dataset)) == ["a", "b", "q"]
