from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demur.data import RefusalTokenConfig, dataset_from_rows, refusal_token_config, refusal_token_rows
from demur.data.builders.refusal_tokens import labelled_prompts
from demur.errors import RowError, UsageError

ROWS = [
    {"id": "a", "prompt": "how tall are you?", "response": "I have no body.", "label": "refuse", "category": "human"},
    {"id": "b", "prompt": "how tall is it?", "response": "Nine feet.", "label": "comply", "category": "human"},
    {"id": "c", "prompt": "who will win?", "response": "Nobody knows.", "label": "abstain", "category": "future"},
    {"id": "d", "prompt": "say hello", "response": "Hello.", "label": "comply", "category": None},
]
ONE = RefusalTokenConfig({"refuse": "[refuse]"})


def rows(*changes: dict[str, object]):
    return dataset_from_rows([{**row, **change} for row, change in zip(ROWS, [*changes, {}, {}, {}, {}], strict=False)])


def test_every_response_begins_with_the_token_of_its_label():
    built = refusal_token_rows(rows(), refusal_token_config(rows()))
    assert built["response"][:] == [
        "[refuse]I have no body.",
        "[respond]Nine feet.",
        "[refuse]Nobody knows.",
        "[respond]Hello.",
    ]
    assert built["id"][:] == ["a", "b", "c", "d"] and built["prompt"][:] == [row["prompt"] for row in ROWS]


def test_categories_have_a_token_each_and_answers_one_for_all():
    config = refusal_token_config(rows(), categories=True)
    assert config.refuse == {"future": "[refuse:future]", "human": "[refuse:human]"}
    built = refusal_token_rows(rows(), config)
    starts = [text.partition("]")[0] + "]" for text in built["response"][:]]
    assert starts == ["[refuse:human]", "[respond]", "[refuse:future]", "[respond]"]


def test_questions_and_answers_keep_their_names():
    renamed = rows().rename_columns({"prompt": "question", "response": "answer"})
    assert refusal_token_rows(renamed, ONE)["answer"][0] == "[refuse]I have no body."


@given(st.text(alphabet="[]refuspond ab", max_size=40), st.integers(0, 40))
def test_no_token_is_left_in_what_was_stripped(text: str, place: int):
    nested = text[:place] + "[re[respond]fuse]" + text[place:]
    for token in ONE.tokens:
        assert token not in ONE.strip(nested)
    if not any(token in text for token in ONE.tokens):
        assert ONE.strip(text) == text


def test_tokens_in_prompts_are_stripped_in_every_turn():
    chat = [
        {"role": "user", "content": "hi[respond]"},
        {"role": "assistant", "content": "[refuse]no"},
        {"role": "user", "content": [{"type": "text", "text": "and [refuse]now?"}, {"type": "image", "path": "x"}]},
    ]
    stripped = ONE.strip_prompt(chat)
    assert [m["content"] for m in stripped[:2]] == ["hi", "no"]  # type: ignore[index]
    assert stripped[2]["content"][0]["text"] == "and now?"  # type: ignore[index]
    assert refusal_token_rows(rows({"prompt": "x [respond]?"}), ONE)["prompt"][0] == "x ?"


@pytest.mark.parametrize(
    ("change", "column", "words"),
    [
        ({"label": None}, "label", "ordinary chat included"),
        ({"response": None}, "response", "is missing"),
        ({"response": "[respond]yes"}, "response", "already"),
    ],
    ids=str,
)
def test_a_row_that_will_not_do_is_named(change: dict[str, object], column: str, words: str):
    with pytest.raises(RowError, match=words) as error:
        refusal_token_rows(rows({}, change), ONE, "mine.jsonl")
    assert (error.value.file, error.value.line, error.value.column) == ("mine.jsonl", 2, column)


def test_a_refusing_row_needs_a_category_that_has_a_token():
    config = refusal_token_config(rows(), categories=True)
    with pytest.raises(RowError, match="is missing"):
        refusal_token_rows(rows({"category": None}), config)
    with pytest.raises(RowError, match="'new' has no refusal token"):
        refusal_token_rows(rows({"category": "new"}), config)


def test_both_kinds_of_row_are_needed():
    for label, words in (("refuse", "answers"), ("comply", "refuses")):
        with pytest.raises(UsageError, match=words):
            refusal_token_rows(rows(*[{"label": label}] * 4), ONE)
    with pytest.raises(UsageError, match="leave categories out"):
        refusal_token_config(rows(*[{"category": None}] * 4), categories=True)


@pytest.mark.parametrize(
    ("refuse", "respond", "words"),
    [
        ({}, "[respond]", "at least one"),
        ({"a": "[x]"}, "[x]", "must differ"),
        ({"a": " [x]"}, "[y]", "without spaces"),
        ({"respond": "[x]"}, "[y]", "rename"),
    ],
)
def test_tokens_that_will_not_do_are_refused(refuse: dict[str, str], respond: str, words: str):
    with pytest.raises(UsageError, match=words):
        RefusalTokenConfig(refuse, respond)


def test_tokens_are_written_beside_a_model_and_read_back(tmp_path: Path):
    config = RefusalTokenConfig({"safety": "[refuse:safety]", "future": "[f]"}, "[ok]")
    (tmp_path / "model").mkdir()
    config.save(tmp_path / "model")
    assert RefusalTokenConfig.load(tmp_path) == RefusalTokenConfig.load(tmp_path / "model") == config
    assert list(RefusalTokenConfig.load(tmp_path).refuse) == ["safety", "future"]
    with pytest.raises(UsageError, match="method refusal-tokens"):
        RefusalTokenConfig.load(tmp_path / "nothing")
    for text, words in (
        ("{", "cannot be read"),
        ("[]", "does not name"),
        (json.dumps({"refuse": {"a": 1}}), "does not"),
    ):
        (tmp_path / "refusal_tokens.json").write_text(text)
        (tmp_path / "model" / "refusal_tokens.json").unlink(missing_ok=True)
        with pytest.raises(UsageError, match=words):
            RefusalTokenConfig.load(tmp_path)


def test_labels_and_categories_are_read_without_responses():
    asked, refuses, categories = labelled_prompts(rows().remove_columns("response"))
    assert refuses == [True, False, True, False] and categories == ["human", "human", "future", None]
    assert asked[3] == "say hello"
    with pytest.raises(RowError, match="label"):
        labelled_prompts(rows({"label": None}))
