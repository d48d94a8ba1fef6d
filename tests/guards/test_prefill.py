from __future__ import annotations

import pytest
import torch

from demur.errors import UsageError
from demur.guards import AlignedPrefill, ForcedRefusal
from demur.models import LanguageModel, LocalEngine, encode
from demur.models.openings import opening_tokens
from tiny import tiny_lm

PROMPTS = ["who wrote the green lamp?", "where was oda marsh born?", "the town of kell", "a"]
LONG = 12


def other_lm(seed: int = 1) -> LanguageModel:
    """The tiny model with other weights."""
    lm = tiny_lm()
    generator = torch.Generator().manual_seed(seed)
    for weights in lm.model.parameters():
        weights.data += 0.3 * torch.randn(weights.shape, generator=generator)
    return lm


def tokens(engine: object, **options: object) -> list[tuple[int, ...]]:
    return [answer.token_ids for answer in engine.generate(PROMPTS, max_new_tokens=LONG, **options)]  # type: ignore[attr-defined]


def ending_lm() -> LanguageModel:
    """A model that ends every answer at once."""
    lm = tiny_lm()
    torch.nn.init.zeros_(lm.model.lm_head.weight)
    lm.model.lm_head.weight.data[lm.tokenizer.eos_token_id] = 1.0
    lm.model.model.norm.weight.data.abs_()
    hook = lm.model.model.norm.register_forward_hook(lambda module, args, out: out.abs() + 1)
    assert hook
    return lm


def test_with_k_zero_the_tuned_model_answers_alone() -> None:
    tuned, aligned = tiny_lm(), other_lm()
    assert tokens(AlignedPrefill(tuned, aligned, 0)) == tokens(LocalEngine(tuned))


def test_with_k_as_long_as_the_answer_the_aligned_model_answers_alone() -> None:
    tuned, aligned = tiny_lm(), other_lm()
    assert tokens(AlignedPrefill(tuned, aligned, LONG)) == tokens(LocalEngine(aligned))
    assert tokens(AlignedPrefill(tuned, aligned, 99)) == tokens(LocalEngine(aligned))


@pytest.mark.parametrize("k", [1, 4, 7])
def test_the_same_model_on_both_sides_changes_nothing(k: int) -> None:
    lm = tiny_lm()
    assert tokens(AlignedPrefill(lm, lm, k)) == tokens(LocalEngine(lm))
    assert tokens(AlignedPrefill(lm, lm, k), temperature=1.0, seed=3) == tokens(
        LocalEngine(lm), temperature=1.0, seed=3
    )


def test_the_aligned_models_tokens_stay_in_the_answer_and_the_tuned_model_reads_them() -> None:
    tuned, aligned, k = tiny_lm(), other_lm(), 4
    found = AlignedPrefill(tuned, aligned, k).generate(PROMPTS, max_new_tokens=LONG)
    begun = [answer.token_ids[:k] for answer in LocalEngine(aligned).generate(PROMPTS, max_new_tokens=k)]
    assert [answer.token_ids[:k] for answer in found] == begun
    went_on = LocalEngine(tuned).generate(PROMPTS, max_new_tokens=LONG, prefill=begun)
    assert found == went_on
    assert any(a.token_ids != b for a, b in zip(found, tokens(LocalEngine(tuned)), strict=True))


def test_an_answer_that_the_aligned_model_ends_is_complete() -> None:
    found = AlignedPrefill(tiny_lm(), ending_lm(), 5).generate(PROMPTS, max_new_tokens=LONG)
    end = tiny_lm().tokenizer.eos_token_id
    assert [answer.token_ids for answer in found] == [(end,)] * len(PROMPTS)
    assert {answer.finish for answer in found} == {"stop"}


def test_a_forced_refusal_opens_every_answer_and_counts_as_part_of_it() -> None:
    lm, opening = tiny_lm(), "the green lamp"
    found = ForcedRefusal(lm, opening).generate(PROMPTS, max_new_tokens=LONG)
    assert all(answer.text.startswith(opening) and len(answer.token_ids) <= LONG for answer in found)
    begun = [item.label_ids[:-1] for item in encode(lm, PROMPTS, [opening] * len(PROMPTS))]
    assert found == LocalEngine(lm).generate(PROMPTS, max_new_tokens=LONG, prefill=begun)


def test_the_guards_compose_in_either_order() -> None:
    tuned, aligned, opening = tiny_lm(), other_lm(), "the green lamp"
    begun = opening_tokens(tuned, PROMPTS, [opening] * len(PROMPTS))
    inside = AlignedPrefill(ForcedRefusal(tuned, opening), aligned, 2)
    first = LocalEngine(aligned).generate(PROMPTS, max_new_tokens=2)
    for answer, start, middle in zip(inside.generate(PROMPTS, max_new_tokens=LONG), first, begun, strict=True):
        assert list(answer.token_ids[: 2 + len(middle)]) == [*start.token_ids, *middle]
    outside = ForcedRefusal(AlignedPrefill(tuned, aligned, 2), opening)
    after = LocalEngine(aligned).generate(PROMPTS, max_new_tokens=len(begun[0]) + 2, prefill=begun)
    for answer, start in zip(outside.generate(PROMPTS, max_new_tokens=LONG), after, strict=True):
        assert answer.token_ids[: len(start.token_ids)] == start.token_ids


def test_likelihoods_are_those_of_the_tuned_model() -> None:
    tuned = tiny_lm()
    answers = ["oda marsh"] * len(PROMPTS)
    expected = LocalEngine(tuned).score(PROMPTS, answers)
    assert AlignedPrefill(tuned, other_lm(), 3).score(PROMPTS, answers) == expected
    assert ForcedRefusal(tuned, "the").score(PROMPTS, answers) == expected


def test_other_vocabularies_and_impossible_settings_are_refused() -> None:
    other = tiny_lm()
    other.tokenizer.add_tokens(["something new"])
    AlignedPrefill(other, tiny_lm(), 3)  # the tuned model may have learned tokens since
    with pytest.raises(UsageError, match="different vocabularies"):
        AlignedPrefill(tiny_lm(), other, 3)
    with pytest.raises(UsageError, match="k >= 0"):
        AlignedPrefill(tiny_lm(), tiny_lm(), -1)
    with pytest.raises(UsageError, match="words to begin with"):
        ForcedRefusal(tiny_lm(), "  ")

    class Blind:
        def generate(self, prompts: list[str]) -> list[str]:
            return prompts

    with pytest.raises(UsageError, match="cannot: pass a model"):
        ForcedRefusal(Blind())  # type: ignore[arg-type]
