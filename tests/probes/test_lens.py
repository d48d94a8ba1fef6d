from __future__ import annotations

import numpy as np
import pytest
import torch

from demur.data import collate
from demur.models import LanguageModel, encode
from demur.probes import lens_logits, logit_lens
from models.architectures import ARCHITECTURES
from tiny import TEXTS, tiny_lm, tiny_tokenizer

FACTS = (["who wrote the green lamp?", "where was oda marsh born?"], ["oda marsh", "in the town of kell"])


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_the_lens_of_the_last_layer_is_the_model_and_that_of_the_others_is_transformers_own(name: str):
    model = ARCHITECTURES[name]()
    lm = LanguageModel(model, tiny_tokenizer(), "chat", name)
    batch = collate(encode(lm, *FACTS), lm.pad_id)
    found = lens_logits(lm, batch)
    with torch.no_grad():
        out = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, output_hidden_states=True)
    kept = batch.attention_mask.bool()
    assert len(found) == len(out.hidden_states)
    torch.testing.assert_close(found[-1][kept], out.logits[kept].float(), rtol=1e-4, atol=1e-4)
    for ours, hidden in zip(found[:-1], out.hidden_states[:-1], strict=True):
        norm = next(
            m
            for n, m in model.named_modules()
            if n.split(".")[-1] in ("norm", "ln_f", "final_layer_norm", "final_layernorm")
            and ".layers." not in n
            and ".h." not in n
        )
        with torch.no_grad():
            logits = model.get_output_embeddings()(norm(hidden))
        order = [logits[kept].argsort(-1), ours[kept].argsort(-1)]
        assert (order[0][:, -1] == order[1][:, -1]).float().mean() == 1.0


def test_a_share_counts_the_answer_s_tokens_that_are_among_the_likeliest():
    lm = tiny_lm()
    facts = encode(lm, *FACTS)
    shares = logit_lens(lm, facts, k=10)
    batch = collate(facts, lm.pad_id)
    with torch.no_grad():
        logits = lm.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    for row, fact in enumerate(facts):
        places = range(fact.prompt_length, len(fact.input_ids))
        hits = [fact.input_ids[p] in logits[row, p - 1].topk(10).indices for p in places]
        assert shares[row, -1] == pytest.approx(np.mean(hits))
    assert shares.shape == (2, 3)
    assert (logit_lens(lm, facts, k=97) == 1).all() and (logit_lens(lm, facts, k=1) <= shares).all()


def test_shares_do_not_depend_on_the_batch():
    lm = tiny_lm()
    facts = encode(lm, TEXTS[:2] + FACTS[0], ["oda", "kell", "a b c d e", "marsh marsh"])
    np.testing.assert_allclose(logit_lens(lm, facts, batch_size=1), logit_lens(lm, facts, batch_size=4))
