from __future__ import annotations

import numpy as np
import pytest
import torch

from demur import UsageError
from demur.data.batch import Encoded
from demur.models import LanguageModel, TokenStats, encode, token_stats
from models.architectures import ARCHITECTURES
from tiny import tiny_lm

QUESTIONS = ["who wrote the green lamp?", "where was oda marsh born?"]
ANSWERS = ["oda marsh", "the green lamp was written by oda marsh.", "k"]


def encoded(lm: LanguageModel) -> list[Encoded]:
    pairs = [(q, a) for q in QUESTIONS for a in ANSWERS]
    return encode(lm, [q for q, _ in pairs], [a for _, a in pairs])


def brute_force(lm: LanguageModel, item: Encoded) -> TokenStats:
    """One answer, one full forward pass, the definitions."""
    with torch.no_grad():
        log_p = lm.model(torch.tensor([item.input_ids])).logits[0].double().log_softmax(-1)
    start, ids = item.prompt_length, np.array(item.label_ids)
    rows = log_p[start - 1 : len(item.input_ids) - 1].numpy()
    p = np.exp(rows)
    mu = (p * rows).sum(1)
    return TokenStats(
        item.id,
        ids,
        rows[np.arange(len(ids)), ids],
        rows.argmax(1) == ids,
        mu,
        (p * rows**2).sum(1) - mu**2,
    )


@pytest.mark.parametrize("batch_size", [4, 100])
@pytest.mark.parametrize("share", [True, False], ids=["shared prefix", "whole rows"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_statistics_equal_one_full_forward_pass_for_each_answer(
    architecture: str, share: bool, batch_size: int
) -> None:
    lm = tiny_lm(architecture)
    items = encoded(lm)
    found = token_stats(lm, items, batch_size=batch_size, share_prefixes=share)
    assert [s.id for s in found] == [e.id for e in items]
    for stats, item in zip(found, items, strict=True):
        expected = brute_force(lm, item)
        np.testing.assert_array_equal(stats.token_ids, expected.token_ids)
        np.testing.assert_array_equal(stats.hits, expected.hits)
        for name in ("logps", "mu", "sigma2"):
            np.testing.assert_allclose(getattr(stats, name), getattr(expected, name), atol=1e-4, rtol=1e-4)


def test_moments_are_computed_only_where_asked_for() -> None:
    lm = tiny_lm()
    items = encoded(lm)
    wanted = [True, False, False, False, True, False]
    found = token_stats(lm, items, moments=wanted)
    full = token_stats(lm, items)
    for some, whole, asked in zip(found, full, wanted, strict=True):
        np.testing.assert_allclose(some.logps, whole.logps, atol=1e-5)
        assert np.isnan(some.mu).all() != asked
        if asked:
            np.testing.assert_allclose(some.sigma2, whole.sigma2, atol=1e-4)


def test_prompt_is_read_once_for_all_its_answers() -> None:
    lm = tiny_lm()
    items = encoded(lm)
    token_stats(lm, items)
    read = []
    lm.model.register_forward_pre_hook(
        lambda module, args, kwargs: read.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    token_stats(lm, items)
    shared = sum(read)
    read.clear()
    token_stats(lm, items, share_prefixes=False)
    assert shared < 0.75 * sum(read)


def test_answer_without_tokens_is_named() -> None:
    with pytest.raises(UsageError, match="rows empty"):
        token_stats(tiny_lm(), [Encoded([5, 6], 2, "empty")])
