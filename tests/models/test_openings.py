from __future__ import annotations

import pytest

from demur.errors import UsageError
from demur.models import LanguageModel, encode, encode_prompts
from demur.models.openings import opening_tokens
from tiny import tiny_lm


@pytest.mark.parametrize("template", ["chat", "plain", "raw"])
def test_prompt_and_opening_read_as_one_text(template: str) -> None:
    lm: LanguageModel = tiny_lm()
    lm.template = template
    prompts, openings = ["who wrote it?", "where is the lamp?"], ["the green lamp", "in kell, "]
    for front, tokens, opening in zip(
        encode_prompts(lm, prompts), opening_tokens(lm, prompts, openings), openings, strict=True
    ):
        whole = lm.tokenizer.decode([*front, *tokens], skip_special_tokens=True)
        assert whole.replace(" ", "").endswith(opening.replace(" ", ""))
        assert lm.tokenizer.eos_token_id not in tokens


def test_where_nothing_merges_the_tokens_are_those_that_training_sees() -> None:
    lm = tiny_lm()
    (tokens,) = opening_tokens(lm, ["who wrote it?"], ["the green lamp"])
    assert tokens == encode(lm, ["who wrote it?"], ["the green lamp was"])[0].label_ids[: len(tokens)]


def test_no_opening_has_no_tokens_and_lengths_must_agree() -> None:
    assert opening_tokens(tiny_lm(), ["a", "b"], ["", " "]) == [[], []]
    with pytest.raises(UsageError, match="1 prompts but 2 responses"):
        opening_tokens(tiny_lm(), ["a"], ["b", "c"])
