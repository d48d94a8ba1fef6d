"""The lab tokenizer writes any text, keeps its special tokens apart and renders conversations."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from demur.lab.tokenizer import train_tokenizer

TEXTS = ["The town of Thornwick lies on the river Osk.", "Who lives in Thornwick?"] * 3


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(TEXTS, 300)


@settings(max_examples=100, deadline=None)
@given(text=st.text())
def test_any_text_comes_back_as_it_was(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    text = text.encode("utf-8", "ignore").decode()
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_beginning_end_and_padding_are_three_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    assert len(ids - {None}) == 3
    assert len(tokenizer) <= 300


def test_template_renders_turns_and_ends_answers(tokenizer: PreTrainedTokenizerFast) -> None:
    conversation = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Who?"},
        {"role": "assistant", "content": "Me."},
        {"role": "user", "content": "Why?"},
    ]
    text = tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
    assert text == "<|begin|><|system|>Be brief.<|user|>Who?<|assistant|>Me.<|end|><|user|>Why?<|assistant|>"


def test_a_prompt_is_a_prefix_of_the_prompt_with_its_answer(tokenizer: PreTrainedTokenizerFast) -> None:
    ask = [{"role": "user", "content": "Who lives in Thornwick?"}]
    told = [*ask, {"role": "assistant", "content": "Nobody."}]
    front = tokenizer.apply_chat_template(ask, add_generation_prompt=True, return_dict=False)
    whole = tokenizer.apply_chat_template(told, return_dict=False)
    assert whole[: len(front)] == front
    assert tokenizer.decode(whole[len(front) : -1]) == "Nobody."
    assert whole[-1] == tokenizer.eos_token_id


def test_frequent_words_are_one_token(tokenizer: PreTrainedTokenizerFast) -> None:
    assert len(tokenizer(" Thornwick", add_special_tokens=False)["input_ids"]) == 1


def test_it_survives_saving(tokenizer: PreTrainedTokenizerFast, tmp_path) -> None:
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    ask = [{"role": "user", "content": "Who lives on the river Osk? Łódź"}]
    assert again.apply_chat_template(ask, return_dict=False) == tokenizer.apply_chat_template(ask, return_dict=False)
    assert again.special_tokens_map == tokenizer.special_tokens_map
    assert (again.pad_token_id, again.model_max_length, again.padding_side) == (0, 512, "left")
