from __future__ import annotations

import numpy as np
import pytest
import torch

from demur import UsageError
from demur.models import LanguageModel, LocalEngine, encode, encode_prompts
from tiny import tiny_lm

PROMPTS = ["who wrote the lamp?", "where?", "was oda marsh born in kell or in the town?", "who?", "the green lamp"]


def greedy(lm: LanguageModel, prompt: str, n: int) -> tuple[int, ...]:
    """transformers' own greedy answer to one prompt."""
    ids = torch.tensor(encode_prompts(lm, [prompt]))
    out = lm.model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=n, do_sample=False, pad_token_id=lm.pad_id
    )
    return tuple(out[0, ids.shape[1] :].tolist())


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma2", "phi", "mixtral"])
def test_greedy_answers_equal_transformers(architecture: str) -> None:
    lm = tiny_lm(architecture)
    expected = [greedy(lm, p, 12) for p in PROMPTS]
    for batch_size in (1, 3, 5):
        answers = LocalEngine(lm, batch_size).generate(PROMPTS, max_new_tokens=12)
        assert [a.token_ids for a in answers] == expected


def test_rows_that_end_early_leave_the_others_unchanged() -> None:
    lm = tiny_lm()
    first = greedy(lm, PROMPTS[0], 8)
    lm.model.generation_config.eos_token_id = [first[3]]  # some answers now end within a few tokens
    answers = LocalEngine(lm, 5).generate(PROMPTS, max_new_tokens=12)
    assert [a.token_ids for a in answers] == [greedy(lm, p, 12) for p in PROMPTS]
    assert answers[0].finish == "stop" and len(answers[0].token_ids) <= 4


def test_prefilled_tokens_open_the_answer_and_change_nothing_where_they_are_greedys_own() -> None:
    lm = tiny_lm()
    plain = LocalEngine(lm).generate(PROMPTS, max_new_tokens=10)
    prefill = [a.token_ids[:k] for a, k in zip(plain, (0, 3, 10, 1, 9), strict=True)]
    assert LocalEngine(lm).generate(PROMPTS, max_new_tokens=10, prefill=prefill) == plain


def test_sampling_does_not_depend_on_batch_size_order_or_company() -> None:
    lm = tiny_lm()
    options = {"max_new_tokens": 10, "temperature": 1.0, "top_p": 0.9, "seed": 3}
    alone = LocalEngine(lm, 1).generate(PROMPTS, **options)
    assert LocalEngine(lm, 4).generate(PROMPTS, **options) == alone
    assert LocalEngine(lm, 4).generate(PROMPTS[::-1], **options) == alone[::-1]
    twice = LocalEngine(lm, 4).generate(["who?", "who?"], **options)
    assert twice[0] != twice[1]
    assert LocalEngine(lm, 4).generate(PROMPTS, **{**options, "seed": 4}) != alone


def test_sampling_follows_the_models_distribution() -> None:
    lm = tiny_lm()
    prompts = ["who?"] * 2000
    answers = LocalEngine(lm, 500).generate(prompts, max_new_tokens=1, temperature=2.0)
    counts = np.bincount([a.token_ids[0] for a in answers], minlength=97) / len(prompts)
    ids = torch.tensor(encode_prompts(lm, ["who?"]))
    with torch.no_grad():
        expected = (lm.model(ids, attention_mask=torch.ones_like(ids)).logits[0, -1] / 2).softmax(-1).numpy()
    assert np.abs(counts - expected).max() < 4 * np.sqrt(0.25 / len(prompts))


def test_top_p_keeps_only_the_likeliest_tokens() -> None:
    lm = tiny_lm()
    answers = LocalEngine(lm).generate(["who?"] * 50, max_new_tokens=1, temperature=1.0, top_p=1e-6)
    assert {a.token_ids for a in answers} == {greedy(lm, "who?", 1)}


def test_stop_text_ends_and_is_cut_off() -> None:
    lm = tiny_lm()
    (full,) = LocalEngine(lm).generate(["who?"], max_new_tokens=12)
    stop = full.text[4]
    (short,) = LocalEngine(lm).generate(["who?"], max_new_tokens=12, stop=[stop])
    assert short.text == full.text[: full.text.index(stop)].strip()
    assert short.finish == "stop"


def test_score_is_the_sum_over_the_answers_tokens() -> None:
    lm = tiny_lm()
    (item,) = encode(lm, ["who wrote it?"], ["oda marsh"])
    logits = lm.model(torch.tensor([item.input_ids])).logits[0].log_softmax(-1)
    expected = sum(logits[t - 1, item.input_ids[t]].item() for t in range(item.prompt_length, len(item.input_ids)))
    (scored,) = LocalEngine(lm).score(["who wrote it?"], ["oda marsh"])
    assert scored.logp == pytest.approx(expected, abs=1e-4)
    assert scored.tokens == len(item.label_ids)


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(UsageError, match="top_p"):
        LocalEngine(tiny_lm()).generate(["who?"], top_p=0.0)
    with pytest.raises(UsageError, match="batch_size"):
        LocalEngine(tiny_lm(), 0)
