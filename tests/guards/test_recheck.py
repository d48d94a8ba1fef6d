from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from demur.errors import UsageError
from demur.guards import AlignedPrefill, Fork, Recheck, Reconsider, Verdict
from demur.guards.recheck import reopening
from demur.models import Generation, LanguageModel, LocalEngine, encode_prompts
from demur.models.openings import opening_tokens
from tiny import tiny_lm

PROMPTS = ["who wrote the green lamp?", "where was oda marsh born?", "the town of kell", "a"]
NO = "i cannot say."
LONG = 12


class Scripted:
    """An engine that says what it is told, token by token, and another thing where its reply ends in some tokens."""

    def __init__(self, said: Sequence[int], after: tuple[Sequence[int], str] = ((), "")) -> None:
        self.lm, self.said, self.calls = tiny_lm(), list(said), 0
        self.header, self.answer = tuple(after[0]), after[1]

    def generate(
        self, prompts: Sequence[Any], *, prefill: Sequence[Sequence[int]] | None = None, **options: Any
    ) -> list[Generation]:
        self.calls += 1
        out = []
        for begun in prefill or [()] * len(prompts):
            tail = self.said[len(begun) :]
            if self.header and tuple(begun[-len(self.header) :]) == self.header:
                (tail,) = opening_tokens(self.lm, ["a"], [self.answer])
            tokens = (*begun, *tail)
            out.append(Generation(self.lm.tokenizer.decode(tokens, skip_special_tokens=True), tokens, "length"))
        return out

    def score(self, prompts: Sequence[Any], responses: Sequence[str]) -> list[Any]:
        return ["scores of the engine"]


def ids(text: str, lm: LanguageModel | None = None) -> list[int]:
    return opening_tokens(lm or tiny_lm(), ["a"], [text])[0]


def passing(forks: Sequence[Fork]) -> list[Verdict]:
    return [Verdict(False) for _ in forks]


def refusing_at(*depths: int) -> Any:
    return lambda forks: [Verdict(len(fork.tokens) in depths) for fork in forks]


@pytest.mark.parametrize("options", [{}, {"temperature": 1.0, "seed": 3}, {"stop": ["a"]}], ids=str)
def test_a_reply_that_passes_is_the_engines_own_token_for_token(options: dict[str, Any]) -> None:
    lm = tiny_lm()
    found = Recheck(lm, passing, 3).generate(PROMPTS, max_new_tokens=LONG, **options)
    plain = LocalEngine(lm).generate(PROMPTS, max_new_tokens=LONG, **options)
    assert [(a.text, a.token_ids, a.finish) for a in found] == [(a.text, a.token_ids, a.finish) for a in plain]
    assert all(answer.cut is None for answer in found)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("every", "cut"), [(25, 75), (50, 200), (75, 75), (100, 200), (120, None)])
def test_a_reply_is_cut_at_the_first_multiple_of_every_where_the_check_refuses(every: int, cut: int | None) -> None:
    guard = Recheck(Scripted([7] * 230), refusing_at(75, 200), every, NO)
    (found,) = guard.generate(["a"])
    assert found.cut == cut  # type: ignore[attr-defined]
    if cut is None:
        assert found.token_ids == (7,) * 230
    else:
        assert found.text == NO and found.finish == "stop" and 7 not in found.token_ids
        assert found.token_ids == (*ids(NO), tiny_lm().tokenizer.eos_token_id)
        assert len(found.checks) == cut // every and [v.refuses for v in found.checks][-1]  # type: ignore[attr-defined]


def test_a_reply_shorter_than_every_is_not_checked() -> None:
    asked: list[int] = []

    def check(forks: Sequence[Fork]) -> list[Verdict]:
        asked.append(len(forks))
        return [Verdict(True) for _ in forks]

    found = Recheck(tiny_lm(), check, LONG + 1).generate(PROMPTS, max_new_tokens=LONG)
    assert not asked and found[0].token_ids
    Recheck(tiny_lm(), check, LONG).generate(PROMPTS, max_new_tokens=LONG)
    assert sum(asked) <= len(PROMPTS)


def test_all_replies_at_a_depth_are_checked_together_and_none_again_once_it_is_cut() -> None:
    seen: list[list[tuple[object, int]]] = []

    def check(forks: Sequence[Fork]) -> list[Verdict]:
        seen.append([(fork.prompt, len(fork.tokens)) for fork in forks])
        return [Verdict(fork.prompt == "b" and len(fork.tokens) == 4) for fork in forks]

    Recheck(Scripted([7] * 6), check, 2, NO).generate(["a", "b", "c"])
    assert seen == [[("a", 2), ("b", 2), ("c", 2)], [("a", 4), ("b", 4), ("c", 4)], [("a", 6), ("c", 6)]]


def test_sentences_are_checked_where_they_end_and_the_whole_reply_too() -> None:
    said = [*ids("the green lamp. was it the town? oda marsh"), tiny_lm().tokenizer.eos_token_id]
    texts: list[str] = []

    def check(forks: Sequence[Fork]) -> list[Verdict]:
        texts.extend(fork.text for fork in forks)
        return passing(forks)

    Recheck(Scripted(said), check, "sentence").generate(["a"])
    assert texts == [
        "the green lamp.",
        "the green lamp. was it the town?",
        "the green lamp. was it the town? oda marsh",
    ]


def test_a_model_that_refuses_only_behind_the_header_is_heard_there_and_nowhere_else() -> None:
    lm = tiny_lm()
    (header,) = reopening(lm, ["a"])
    lamp = Scripted(ids("the green lamp was in the town of kell"), (header, "i cannot"))
    replies = lamp.generate(PROMPTS)
    assert not any("cannot" in answer.text for answer in replies)
    guarded = Recheck(lamp, Reconsider(lamp, lookahead=5), 4, NO).generate(PROMPTS)
    assert {answer.text for answer in guarded} == {NO} and {answer.cut for answer in guarded} == {4}  # type: ignore[attr-defined]
    in_mid_reply = Recheck(lamp, Reconsider(lamp, (), lookahead=5), 4, NO).generate(PROMPTS)
    assert [answer.text for answer in in_mid_reply] == [answer.text for answer in replies]


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "mistral", "gpt2"])
@pytest.mark.parametrize("header", ["turn", "question"])
def test_what_is_read_is_what_the_model_says_after_prompt_reply_and_header(architecture: str, header: Any) -> None:
    lm, said = tiny_lm(architecture), []
    heard = Reconsider(lm, header, 3, lambda text: bool(said.append(text)))
    replies = LocalEngine(lm).generate(PROMPTS, max_new_tokens=9)
    heard([Fork(p, a.token_ids[: 3 + i], "") for i, (p, a) in enumerate(zip(PROMPTS, replies, strict=True))])
    for i, (prompt, opening) in enumerate(
        zip(encode_prompts(lm, PROMPTS), reopening(lm, PROMPTS, header), strict=True)
    ):
        tokens = [*prompt, *replies[i].token_ids[: 3 + i], *opening]
        start = len(tokens)
        with torch.no_grad():
            while len(tokens) < start + 3 and tokens[-1] != lm.tokenizer.eos_token_id:
                tokens.append(int(lm.model(torch.tensor([tokens])).logits[0, -1].argmax()))
        assert said[i] == lm.tokenizer.decode(tokens[start:], skip_special_tokens=True).strip()


def test_a_turn_is_ended_and_opened_as_the_template_does_and_the_question_asked_where_it_cannot() -> None:
    lm = tiny_lm()
    end, begin = lm.tokenizer.eos_token_id, lm.tokenizer.bos_token_id
    assert reopening(lm, PROMPTS) == [(end, *lm.tokenizer("a:", add_special_tokens=False)["input_ids"])] * len(PROMPTS)
    again = [(end, *tokens[1:]) for tokens in encode_prompts(lm, PROMPTS)]
    assert encode_prompts(lm, PROMPTS)[0][0] == begin
    assert reopening(lm, PROMPTS, "question") == again
    lm.tokenizer.chat_template = lm.tokenizer.chat_template.partition("{% if add_generation_prompt %}")[0]
    assert reopening(lm, PROMPTS) == [(end, *tokens[1:]) for tokens in encode_prompts(lm, PROMPTS)] != again
    lm.template = "plain"
    assert reopening(lm, ["a"]) == [(end, *lm.tokenizer("Question: a\nAnswer: ")["input_ids"])]


def test_what_a_guard_within_or_a_prefill_wrote_is_checked_too() -> None:
    lm, begun = tiny_lm(), [ids("oda marsh")] * len(PROMPTS)
    texts: list[str] = []

    def check(forks: Sequence[Fork]) -> list[Verdict]:
        texts.extend(fork.text for fork in forks)
        return passing(forks)

    guard = Recheck(AlignedPrefill(lm, lm, 2), check, len(begun[0]))
    guard.generate(PROMPTS, prefill=begun, max_new_tokens=len(begun[0]) + 1)
    assert texts == ["oda marsh"] * len(PROMPTS)
    outer = AlignedPrefill(Recheck(lm, refusing_at(4), 4, NO), lm, 2)
    assert {answer.text for answer in outer.generate(PROMPTS, max_new_tokens=LONG) if len(answer.token_ids) > 4} <= {NO}


def test_likelihoods_are_the_engines() -> None:
    assert Recheck(Scripted([7]), passing).score(["a"], ["b"]) == ["scores of the engine"]


def test_settings_that_cannot_be_are_refused() -> None:
    lm = tiny_lm()
    for every in (0, -3, "word"):
        with pytest.raises(UsageError, match="every k >= 1"):
            Recheck(lm, passing, every)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="needs a refusal"):
        Recheck(lm, passing, refusal=" ")
    with pytest.raises(UsageError, match="at least 1 token"):
        Reconsider(lm, lookahead=0)
    with pytest.raises(UsageError, match="'question' again"):
        Reconsider(lm, "chapter")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="lower max_new_tokens"):
        Reconsider(lm)([Fork("a", (7,) * 125, "")])
