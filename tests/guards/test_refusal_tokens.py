from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from demur.data import Encoded, collate
from demur.errors import UsageError
from demur.guards import RefusalDial, RefusalTokenConfig, RefusalTokenGuard, choose_tokens, open_guard
from demur.guards.refusal_scores import OWN
from demur.guards.refusal_tokens import last_logits, token_ids
from demur.models import Engine, LanguageModel, LocalEngine, encode_prompts
from demur.training.refusal import add_refusal_tokens
from tiny import tiny_lm

CONFIG = RefusalTokenConfig({"a": "[refuse:a]", "b": "[refuse:b]"})
PROMPTS = ["who wrote the green lamp?", "where?", "where was oda marsh born, in the town of kell?", "who?"]


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    """A random model whose refusal tokens have weights of their own, so that each prompt has its scores."""
    lm = tiny_lm()
    ids = add_refusal_tokens(lm, CONFIG)
    torch.manual_seed(0)
    with torch.no_grad():
        lm.model.get_output_embeddings().weight[ids] += 0.5 * torch.randn(3, lm.model.config.hidden_size)
    return lm


def test_scores_are_those_of_the_model_s_own_logits_one_prompt_at_a_time(lm: LanguageModel):
    found = RefusalTokenGuard(LocalEngine(lm, 3), CONFIG).refusal_scores(PROMPTS)
    ids = token_ids(lm, CONFIG)
    for row, prompt in enumerate(encode_prompts(lm, PROMPTS)):
        with torch.no_grad():
            expected = lm.model(input_ids=torch.tensor([prompt])).logits[0, -1].double().log_softmax(0)
        np.testing.assert_allclose(found.logps[row], expected[ids], atol=1e-5)
        rest = [i for i in range(len(expected)) if i not in ids]
        assert found.others[row] == pytest.approx(float(expected[rest].logsumexp(0)), abs=1e-5)
        assert int(found.other_ids[row]) == rest[int(expected[rest].argmax())]


@pytest.mark.parametrize("size", [1, 2, 4])
def test_batched_and_single_prompts_agree(lm: LanguageModel, size: int):
    guard = RefusalTokenGuard(LocalEngine(lm, size), CONFIG, RefusalDial({"a": 0.2}))
    whole = guard.refusal_scores(PROMPTS)
    answers = guard.generate(PROMPTS, max_new_tokens=6)
    for row, prompt in enumerate(PROMPTS):
        alone = guard.refusal_scores([prompt])
        np.testing.assert_allclose(whole.logps[row], alone.logps[0], atol=1e-5)
        (answer,) = guard.generate([prompt], max_new_tokens=6)
        assert (answer.text, answer.token, answer.category) == (
            answers[row].text,
            answers[row].token,
            answers[row].category,
        )


def test_padding_on_the_right_is_refused(lm: LanguageModel):
    rows = [Encoded(ids, 0) for ids in encode_prompts(lm, PROMPTS[:2])]
    with pytest.raises(UsageError, match="padded on the right"):
        last_logits(lm, collate(rows, lm.pad_id, "right"))


def test_the_answer_follows_from_the_token_and_does_not_show_it(lm: LanguageModel):
    guard = RefusalTokenGuard(lm, CONFIG, RefusalDial(0.0))
    scores = guard.refusal_scores(PROMPTS)
    plain = LocalEngine(lm)
    for answer, prompt, place, score in zip(
        guard.generate(PROMPTS, max_new_tokens=5), PROMPTS, scores.top, scores.refusal, strict=True
    ):
        assert answer.category == CONFIG.categories[place] and answer.token == CONFIG.tokens[1 + place]
        assert answer.refusal == pytest.approx(score)
        (same,) = plain.generate([prompt], max_new_tokens=6, prefill=[[token_ids(lm, CONFIG)[1 + place]]])
        assert answer.token_ids == same.token_ids and answer.token_ids[0] == token_ids(lm, CONFIG)[1 + place]
        assert not any(token in answer.text for token in CONFIG.tokens)
    assert all(
        a.token == "[respond]" and a.category is None
        for a in RefusalTokenGuard(lm, CONFIG, RefusalDial(2.0)).generate(PROMPTS, max_new_tokens=2)
    )


def test_an_uncontrolled_model_answers_as_it_would_by_itself(lm: LanguageModel):
    free = RefusalTokenGuard(lm, CONFIG, RefusalDial({}))
    own = LocalEngine(lm).generate(PROMPTS, max_new_tokens=7)
    chosen = choose_tokens(free.refusal_scores(PROMPTS), RefusalDial({}))
    for answer, other, place in zip(free.generate(PROMPTS, max_new_tokens=7), own, chosen, strict=True):
        assert answer.token_ids[:7] == other.token_ids
        assert (place == OWN) == (answer.token not in CONFIG.tokens)


def test_tokens_that_users_write_change_nothing(lm: LanguageModel):
    guard = RefusalTokenGuard(lm, CONFIG)
    clean = guard.refusal_scores(["who wrote the green lamp?"])
    for prompt in (
        "who wrote the [respond]green lamp?",
        [{"role": "user", "content": "who wrote the green lamp?[refuse:a]"}],
    ):
        np.testing.assert_array_equal(guard.refusal_scores([prompt]).logps, clean.logps)


def test_a_large_bias_always_or_never_refuses(lm: LanguageModel):
    for bias, expected in ((50.0, "b"), (-50.0, None)):
        dial = RefusalDial(-1, logit_bias={"b": bias, "a": -50.0})
        answers = RefusalTokenGuard(lm, CONFIG, dial).generate(PROMPTS, max_new_tokens=1)
        assert {answer.category for answer in answers} == {expected}


def test_responses_are_scored_after_their_token(lm: LanguageModel):
    guard = RefusalTokenGuard(lm, CONFIG, RefusalDial(0.0))
    (found,) = guard.score(["who?"], ["oda marsh."])
    top = int(guard.refusal_scores(["who?"]).top[0])
    ids = [*encode_prompts(lm, ["who?"])[0], token_ids(lm, CONFIG)[1 + top]]
    rest = lm.tokenizer(CONFIG.tokens[1 + top] + "oda marsh.", add_special_tokens=False)["input_ids"][1:]
    rest.append(lm.tokenizer.eos_token_id)
    with torch.no_grad():
        logps = lm.model(input_ids=torch.tensor([ids + rest])).logits[0].log_softmax(1)
    expected = sum(float(logps[len(ids) - 1 + i, token]) for i, token in enumerate(rest))
    assert found.logp == pytest.approx(expected, abs=1e-4) and found.tokens == len(rest)
    assert isinstance(guard, Engine)


def test_a_token_that_is_not_in_the_vocabulary_is_refused_not_read_by_its_last_piece():
    with pytest.raises(UsageError, match=r"\[respond\], \[refuse:a\], \[refuse:b\] are not in the vocabulary"):
        RefusalTokenGuard(tiny_lm(), CONFIG)


def test_a_model_without_tokens_or_with_unseen_logits_is_refused(lm: LanguageModel, tmp_path: Path):
    with pytest.raises(UsageError, match="pass config="):
        RefusalTokenGuard(lm)
    with pytest.raises(UsageError, match="no refusal token for category 'c'"):
        RefusalTokenGuard(lm, CONFIG, RefusalDial({"c": 0.5}))

    class Remote:
        def generate(self, prompts, **options):
            raise AssertionError

        def score(self, prompts, responses):
            raise AssertionError

    with pytest.raises(UsageError, match="load the model on this machine"):
        RefusalTokenGuard(Remote(), CONFIG)


def test_a_saved_dial_is_opened_by_its_kind_and_for_its_weights_only(lm: LanguageModel, tmp_path: Path):
    dial = RefusalDial({"a": 0.3, "b": -1.0}, 1.5, {"respond": -0.5})
    RefusalTokenGuard(lm, CONFIG, dial).save(tmp_path / "dial")
    found = open_guard(tmp_path / "dial", LocalEngine(lm))
    assert isinstance(found, RefusalTokenGuard) and found.dial == dial and found.config == CONFIG
    other = tiny_lm()
    add_refusal_tokens(other, CONFIG)
    with pytest.raises(UsageError, match="set for other weights"):
        open_guard(tmp_path / "dial", LocalEngine(other))
    (tmp_path / "dial" / "guard.json").write_text('{"kind": "refusal-tokens", "format": 1}')
    with pytest.raises(UsageError, match="no whole guard"):
        open_guard(tmp_path / "dial", LocalEngine(lm))


def test_no_prompts_have_no_scores(lm: LanguageModel):
    guard = RefusalTokenGuard(lm, CONFIG)
    assert len(guard.refusal_scores([])) == 0 and guard.generate([]) == []
