from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from demur.guards import ForbiddenPhraseLogitsProcessor, find_phrase
from demur.guards.restriction import Pieces, Restriction, token_trie
from demur.models import LanguageModel, encode_prompts
from tiny import tiny_lm

LM = tiny_lm()
PIECES = Pieces(LM.tokenizer, LM.model.config.vocab_size)


def answer(lm: LanguageModel, phrases: list[str], **options: object) -> str:
    ids = torch.tensor(encode_prompts(lm, ["who wrote the lamp?"]))
    out = lm.model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=12,
        pad_token_id=lm.pad_id,
        logits_processor=[ForbiddenPhraseLogitsProcessor(lm.tokenizer, phrases, ids.shape[1])],
        **options,
    )
    return str(lm.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True))


@pytest.mark.parametrize("options", [{"do_sample": False}, {"num_beams": 3}, {"do_sample": True, "temperature": 3.0}])
def test_generate_does_not_say_the_phrases(options: dict[str, object]):
    torch.manual_seed(0)
    free = answer(LM, [], **options)
    banned = [free[i : i + 3] for i in range(0, len(free) - 3, 2) if free[i : i + 3].strip()]
    assert find_phrase(banned, free) is not None
    assert find_phrase(banned, answer(LM, banned, **options)) is None


def test_no_phrases_change_nothing():
    ids = torch.tensor(encode_prompts(LM, ["who?"]))
    scores = torch.randn(1, LM.model.config.vocab_size)
    assert torch.equal(ForbiddenPhraseLogitsProcessor(LM.tokenizer, [], ids.shape[1])(ids, scores), scores)


@settings(max_examples=150)
@given(
    st.lists(st.text("abeho tr", min_size=1, max_size=5), min_size=1, max_size=3),
    st.lists(st.integers(4, 96), max_size=5),
)
def test_exactly_the_tokens_that_complete_a_phrase_are_forbidden(phrases: list[str], tokens: list[int]):
    wanted = [p for p in phrases if p.strip()]
    trie = token_trie(LM.tokenizer, [])
    rule = Restriction(wanted, trie, PIECES, LM.tokenizer)
    state = rule.start
    for n in range(len(tokens)):
        before = "".join(PIECES.texts[t] for t in tokens[:n])
        forbidden = {t for t in range(97) if find_phrase(wanted, before + PIECES.texts[t]) is not None}
        assert set(rule.forbidden(state).tolist()) == forbidden
        after = rule.advance(state, tokens[: n + 1])
        assert (after is None) == (tokens[n] in forbidden)
        if after is None:
            break
        state = after
