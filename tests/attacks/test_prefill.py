from __future__ import annotations

import pytest

from demur.attacks import completion_attack, prefill_asr
from demur.errors import UsageError
from demur.models import LocalEngine, encode_prompts
from demur.models.openings import opening_tokens
from tiny import tiny_lm

PROMPTS = ["who wrote the green lamp?", "where was oda marsh born?"]
UNSAFE = ["the green lamp was written by oda", "oda marsh was"]


def test_nothing_given_is_the_plain_answer() -> None:
    lm = tiny_lm()
    table = prefill_asr(lm, PROMPTS, UNSAFE, lambda row, said: True, k_values=[0], max_new_tokens=8)
    plain = LocalEngine(lm).generate(PROMPTS, max_new_tokens=8)
    assert table["continuation"].tolist() == [answer.text for answer in plain]
    assert table["beginning"].tolist() == ["", ""]


@pytest.mark.parametrize(("unit", "text"), [("word", "the green"), ("token", None)])
def test_the_model_goes_on_from_the_beginning_and_only_its_own_words_are_judged(unit: str, text: str | None) -> None:
    lm, seen = tiny_lm(), []

    def judge(row: int, said: str) -> bool:
        seen.append((row, said))
        return row == 0

    table = prefill_asr(lm, PROMPTS, UNSAFE, judge, k_values=[2], unit=unit, max_new_tokens=6)  # type: ignore[arg-type]
    given = opening_tokens(lm, PROMPTS, UNSAFE)
    begun = (
        [tokens[:2] for tokens in given] if unit == "token" else opening_tokens(lm, PROMPTS, ["the green", "oda marsh"])
    )
    answers = LocalEngine(lm).generate(PROMPTS, prefill=begun, max_new_tokens=6 + max(map(len, begun)))
    expected = [
        lm.tokenizer.decode(answer.token_ids[len(tokens) :][:6], skip_special_tokens=True).strip()
        for answer, tokens in zip(answers, begun, strict=True)
    ]
    assert [said for _, said in seen] == expected == table["continuation"].tolist()
    assert table["success"].tolist() == [True, False]
    if text is not None:
        assert table["beginning"][0] == text


def test_a_reply_that_is_no_longer_than_what_is_given_is_left_out() -> None:
    table = prefill_asr(tiny_lm(), PROMPTS, UNSAFE, lambda row, said: True, k_values=[2, 3, 6], max_new_tokens=2)
    assert table.groupby("k")["row"].apply(list).to_dict() == {2: [0, 1], 3: [0], 6: [0]}
    with pytest.raises(UsageError, match="more than 9 words"):
        prefill_asr(tiny_lm(), PROMPTS, UNSAFE, lambda row, said: True, k_values=[9])


def test_rows_that_do_not_match_and_impossible_counts_are_refused() -> None:
    with pytest.raises(UsageError, match="a reply to each prompt"):
        prefill_asr(tiny_lm(), PROMPTS, UNSAFE[:1], lambda row, said: True)
    with pytest.raises(UsageError, match="k >= 0"):
        prefill_asr(tiny_lm(), PROMPTS, UNSAFE, lambda row, said: True, k_values=[-1])


def test_completion_shows_the_bare_statement_and_leaves_the_model_its_template() -> None:
    lm = tiny_lm()
    found = completion_attack(lm, ["the green lamp"], max_new_tokens=5)
    assert lm.template == "chat"
    bare = lm.tokenizer("the green lamp")["input_ids"]
    assert encode_prompts(lm, ["the green lamp"])[0] != bare
    lm.template = "raw"
    assert found == [LocalEngine(lm).generate(["the green lamp"], max_new_tokens=5)[0].text]
