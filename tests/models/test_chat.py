from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demur import UsageError
from demur.models import LanguageModel, encode, encode_prompts, render
from tiny import tiny_lm

LM = tiny_lm()


def test_labels_are_the_answer_and_one_end_token() -> None:
    (item,) = encode(LM, ["who wrote it?"], ["oda marsh"], ["row"])
    eos = LM.tokenizer.eos_token_id
    assert item.id == "row"
    assert item.label_ids[-1] == eos and item.input_ids.count(eos) == 1
    assert LM.tokenizer.decode(item.label_ids, skip_special_tokens=True).strip() == "oda marsh"
    assert item.input_ids[: item.prompt_length] == encode_prompts(LM, ["who wrote it?"])[0]


def test_white_space_that_a_template_writes_after_the_end_token_is_no_label() -> None:
    lm = tiny_lm()
    lm.tokenizer.chat_template += "{% if not add_generation_prompt %}{{ '\n' }}{% endif %}"
    (item,) = encode(lm, ["who?"], ["oda"])
    assert item.label_ids[-1] == lm.tokenizer.eos_token_id
    assert item.label_ids.count(lm.tokenizer.eos_token_id) == 1


def test_plain_template_shows_question_and_answer_tags() -> None:
    assert render(LM.tokenizer, "plain", "who?") == "Question: who?\nAnswer: "


def test_conversation_renders_every_turn() -> None:
    messages = [
        {"role": "user", "content": "who?"},
        {"role": "assistant", "content": "oda"},
        {"role": "user", "content": "where?"},
    ]
    assert render(LM.tokenizer, "chat", messages) == "<s>u:who?\na:oda</s>u:where?\na:"


def test_conversation_that_ends_with_the_assistant_is_refused() -> None:
    with pytest.raises(UsageError, match="must end with a user's turn"):
        render(LM.tokenizer, "chat", [{"role": "assistant", "content": "oda"}])


def test_sequence_longer_than_the_context_names_its_row() -> None:
    with pytest.raises(UsageError, match=r"row 'x7' takes \d+ tokens, more than the 128"):
        encode(LM, ["who?"], ["oda " * 200], ["x7"])
    with pytest.raises(UsageError, match="prompt 0 takes"):
        encode_prompts(LM, ["who " * 200])


def test_unequal_numbers_of_prompts_and_responses_are_refused() -> None:
    with pytest.raises(UsageError, match="2 prompts but 1 responses"):
        encode(LM, ["a", "b"], ["c"])


def test_tokenizer_without_end_token_is_refused() -> None:
    lm = LanguageModel(LM.model, tiny_lm().tokenizer, "plain", "endless")
    lm.tokenizer.eos_token = None
    with pytest.raises(UsageError, match="no end-of-text token"):
        encode(lm, ["a"], ["b"])


text = st.text("abcdefghijklmnopqrstuvwxyz ,.'?", min_size=1, max_size=30)


@settings(max_examples=100, deadline=None)
@given(text, text, st.sampled_from(["chat", "plain"]))
def test_prompt_and_labels_make_up_the_whole_text(prompt: str, response: str, template: str) -> None:
    lm = LanguageModel(LM.model, LM.tokenizer, template, "tiny")
    (item,) = encode(lm, [prompt], [response])
    assert item.label_ids, "an answer always has tokens"
    front = lm.tokenizer.decode(item.input_ids[: item.prompt_length], skip_special_tokens=True)
    back = lm.tokenizer.decode(item.label_ids, skip_special_tokens=True)
    whole = lm.tokenizer.decode(item.input_ids, skip_special_tokens=True)
    assert (front + back).replace(" ", "") == whole.replace(" ", "")
    assert response.replace(" ", "") in whole.replace(" ", "")
