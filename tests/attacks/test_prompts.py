from __future__ import annotations

import numpy as np
import pytest

from demur.attacks import PROMPT_ATTACKS, Questions, answer_probability, prefill_attack, prompt_attack
from demur.data import Encoded
from demur.errors import UsageError
from demur.models import encode
from tiny import tiny_lm

QUESTIONS = Questions(
    ["who wrote the green lamp?", "where was oda born?"],
    ["oda marsh", "the town of kell"],
    ["the green lamp was written by who?", "oda was born where?"],
    [[("who is oda?", "a writer")], [("who is marsh?", "oda")]],
    [("what is kell?", "a town"), ("what is a lamp?", "green")],
)


@pytest.mark.parametrize("name", sorted(PROMPT_ATTACKS))
def test_every_attack_gives_each_answer_a_probability(name: str):
    values = prompt_attack(tiny_lm(), name, QUESTIONS)
    assert values.shape == (2,) and ((values > 0) & (values < 1)).all()


def test_what_is_measured_is_the_true_answer_alone_not_how_it_is_opened():
    lm = tiny_lm()
    opened = encode(lm, QUESTIONS.questions, ["Sure, here is the answer: " + a for a in QUESTIONS.answers])
    plain = encode(lm, QUESTIONS.questions, QUESTIONS.answers)
    rest = [Encoded(o.input_ids, len(o.input_ids) - len(p.label_ids)) for o, p in zip(opened, plain, strict=True)]
    values = prompt_attack(lm, "affirmative", QUESTIONS)
    # The first token of an answer may be written otherwise after other text: what is shared at the end counts.
    for value, item, whole in zip(values, rest, plain, strict=True):
        shared = next(n for n in range(len(whole.label_ids), 0, -1) if whole.label_ids[-n:] == item.input_ids[-n:])
        exact = answer_probability(lm, [Encoded(item.input_ids, len(item.input_ids) - shared)])[0]
        assert value == pytest.approx(exact, rel=1e-5)


def test_prefill_gives_the_first_tokens_away():
    lm = tiny_lm()
    facts = encode(lm, QUESTIONS.questions, QUESTIONS.answers)
    found = prefill_attack(lm, facts, tokens=(0, 1, 2))
    np.testing.assert_allclose(found[0], answer_probability(lm, facts))
    for k in (1, 2):
        given = [Encoded(f.input_ids, f.prompt_length + k) for f in facts]
        np.testing.assert_allclose(found[k], answer_probability(lm, given), rtol=1e-5)
    assert np.isnan(prefill_attack(lm, facts, tokens=(99,))[99]).all()


def test_few_examples_are_taken_where_the_context_has_no_room_for_more():
    lm = tiny_lm()
    long = [("who is oda?", "a writer " * 12), ("where?", "in kell " * 12)]
    questions = Questions(QUESTIONS.questions, QUESTIONS.answers, siblings=[long, [(long[0][0], "a " * 90)] * 2])
    values = prompt_attack(lm, "few_shot", questions)
    assert np.isfinite(values[0]) and np.isnan(values[1])


@pytest.mark.parametrize(
    ("name", "words"),
    [("paraphrase", "needs paraphrases"), ("few_shot", "needs siblings"), ("parafrase", "did you mean")],
)
def test_what_is_missing_is_said(name: str, words: str):
    with pytest.raises(UsageError, match=words):
        prompt_attack(tiny_lm(), name, Questions(["who?"], ["oda"]))
