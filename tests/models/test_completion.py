from __future__ import annotations

from typing import Any

import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from audits.muse_world import FORGET, muse_lm
from demur.data.batch import collate
from demur.errors import UsageError
from demur.models import LanguageModel, encode_chunks, encode_completion, encode_rows, render


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return muse_lm()


def ids(lm: LanguageModel, text: str, special: bool = True) -> list[int]:
    return list(lm.tokenizer(text, add_special_tokens=special)["input_ids"])


def test_prefix_and_text_are_one_text_without_an_end_token(lm: LanguageModel) -> None:
    (item,) = encode_completion(lm, ["The ferry"], ["to Oslo"], insert_space=True)
    assert item.input_ids == [lm.tokenizer.bos_token_id, *ids(lm, "The ferry to Oslo", special=False)]
    assert item.input_ids[: item.prompt_length] == ids(lm, "The ferry")
    assert lm.tokenizer.decode(item.label_ids) == " to Oslo"
    assert lm.tokenizer.eos_token_id not in item.input_ids


def test_without_a_prefix_all_but_the_first_token_are_labels(lm: LanguageModel) -> None:
    (with_begin,) = encode_completion(lm, [""], ["The ferry"])
    assert with_begin.prompt_length == 1
    tokenizer: Any = muse_lm().tokenizer
    tokenizer.backend_tokenizer.post_processor = None
    bare = LanguageModel(lm.model, tokenizer, "plain")
    (item,) = encode_completion(bare, [""], ["The ferry"])
    assert (item.prompt_length, item.first_label) == (0, 1)
    labels = collate([item], bare.pad_id).labels[0].tolist()
    assert labels[0] == -100 and labels[1:] == item.input_ids[1:]


def test_the_border_is_where_the_tokens_part_and_in_compat_the_prefix_s_own_count(lm: LanguageModel) -> None:
    # " i" is one token at the end of the prefix, and "in" is one token once the text follows.
    corrected = encode_completion(lm, ["born i"], ["n Oslo"])[0]
    compat = encode_completion(lm, ["born i"], ["n Oslo"], compat=True)[0]
    assert lm.tokenizer.decode(corrected.label_ids) == " in Oslo"
    assert compat.prompt_length == len(ids(lm, "born i"))
    assert lm.tokenizer.decode(compat.label_ids) == "in Oslo"


def test_a_long_text_is_cut_and_a_prompt_never(lm: LanguageModel) -> None:
    (item,) = encode_completion(lm, ["The ferry"], [FORGET[0]], max_length=3, insert_space=True)
    assert len(item.label_ids) == 3 and item.input_ids[: item.prompt_length] == ids(lm, "The ferry")


def test_what_does_not_fit_into_the_context_is_refused_by_name(lm: LanguageModel) -> None:
    with pytest.raises(UsageError, match=r"row 'long' takes \d+ tokens, more than the 512"):
        encode_completion(lm, ["a " * 600], ["b"], ["long"])
    with pytest.raises(UsageError, match="2 prefixes but 1 texts"):
        encode_completion(lm, ["a", "b"], ["c"])


@settings(max_examples=30)
@given(length=st.integers(2, 40))
def test_pieces_hold_every_token_once_and_each_begins_anew(length: int) -> None:
    lm = muse_lm()
    joined = ids(lm, "\n\n".join(FORGET), special=False)
    pieces = encode_chunks(lm, FORGET, length)
    by_hand = [joined[start : start + length] for start in range(0, len(joined), length)]
    assert len(pieces) == len(by_hand)
    for piece, cut in zip(pieces, by_hand, strict=True):
        assert piece.input_ids == ids(lm, lm.tokenizer.decode(cut))[: length + 1]
        assert piece.prompt_length == 1 and piece.input_ids[0] == lm.tokenizer.bos_token_id


def test_pieces_are_read_anew_so_that_tokens_may_merge_otherwise(lm: LanguageModel) -> None:
    joined = ids(lm, FORGET[0], special=False)
    pieces = encode_chunks(lm, FORGET[:1], 5)
    assert "".join(lm.tokenizer.decode(p.input_ids[1:]) for p in pieces) == FORGET[0]
    assert len(joined) == len(ids(lm, FORGET[0])) - 1


def test_a_piece_is_never_longer_than_the_model_can_read(lm: LanguageModel) -> None:
    pieces = encode_chunks(lm, FORGET * 20)
    assert len(pieces) > 1 and max(len(p.input_ids) for p in pieces) <= (lm.context or 0)
    with pytest.raises(UsageError, match="fewer than two tokens"):
        encode_chunks(lm, [""])


def test_rows_of_either_kind_are_encoded(lm: LanguageModel) -> None:
    texts = Dataset.from_list([{"id": str(i), "text": text} for i, text in enumerate(FORGET)])
    assert [e.id for e in encode_rows(lm, texts, 0)] == ["0", "1", "2", "3"], "0 keeps each text by itself"
    assert [e.id for e in encode_rows(lm, texts)] == ["piece 0"]
    answers = Dataset.from_list([{"id": "q", "question": "Where?", "answer": "Here."}])
    assert encode_rows(lm, answers)[0].input_ids[-1] == lm.tokenizer.eos_token_id


def test_the_raw_template_shows_nothing_but_the_text(lm: LanguageModel) -> None:
    assert render(lm.tokenizer, "raw", "The ferry") == "The ferry"
