from __future__ import annotations

import numpy as np
import pytest
import torch

from demur.attacks import adapter_detached, answer_probability, direction_attack, direction_removed, directions
from demur.errors import UsageError
from demur.models import encode, record
from tiny import tiny_lm

WITHHELD, ANSWERED = ["who is oda?", "where was oda born?"], ["what is kell?", "what is a lamp?", "who wrote it?"]


def test_the_direction_is_the_unit_difference_of_means():
    withheld, answered = torch.randn(4, 2, 8), torch.randn(5, 2, 8)
    unit, level = directions(withheld, answered)
    gap = withheld.mean(0) - answered.mean(0)
    assert torch.allclose(unit * gap.norm(dim=-1, keepdim=True), gap, atol=1e-6)
    assert torch.allclose(level, (answered * unit).sum(-1).mean(0), atol=1e-5)
    assert not directions(withheld, withheld)[0].any()


def test_inside_the_block_the_component_is_at_its_level_and_the_rest_untouched():
    lm = tiny_lm()
    unit = torch.nn.functional.normalize(torch.randn(2, 32, generator=torch.Generator().manual_seed(0)), dim=-1)
    level = torch.tensor([0.5, -1.0])
    ids = torch.tensor([[1, 5, 6, 7]])
    with record(lm.model) as plain:
        lm.model(input_ids=ids)
    with direction_removed(lm, unit, level, [1]), record(lm.model) as held:
        lm.model(input_ids=ids)
    assert torch.allclose(held[1] @ unit[1], torch.full((1, 4), -1.0), atol=1e-5)
    off = plain[1] - (plain[1] @ unit[1]).unsqueeze(-1) * unit[1]
    assert torch.allclose(held[1] - (held[1] @ unit[1]).unsqueeze(-1) * unit[1], off, atol=1e-5)
    assert torch.equal(held[0], plain[0])

    def __init__(self, layer: torch.nn.Module, direction: torch.Tensor) -> None:
        super().__init__()
        self.layer, self.direction = layer, direction


def test_a_model_that_withholds_along_one_direction_answers_again_without_it():
    before, lm = tiny_lm("gpt2"), tiny_lm("gpt2")
    facts = encode(lm, WITHHELD, ["oda marsh", "the town of kell"])
    answers = torch.tensor([token for fact in facts for token in fact.label_ids])
    with torch.no_grad():
        lm.model.transformer.h[0].mlp.c_proj.bias -= 3 * lm.model.lm_head.weight[answers].sum(0)
    hidden, known = (np.log(answer_probability(model, facts)) for model in (lm, before))
    assert (hidden < known - 1).all()
    back = np.log(direction_attack(lm, WITHHELD, ANSWERED, facts, before=before))
    assert abs(back - known).mean() < 0.3 * abs(hidden - known).mean()


def test_the_choice_of_layers_is_made_on_other_facts_and_the_model_is_left_alone():
    lm = tiny_lm()
    facts, others = encode(lm, WITHHELD, ["oda", "kell"]), encode(lm, ANSWERED, ["a town", "green", "marsh"])
    seen = []

    def knowledge(model, rows):
        seen.append([r.input_ids for r in rows])
        return answer_probability(model, rows)

    plain, weights = answer_probability(lm, facts), lm.weights_hash()
    direction_attack(lm, WITHHELD, ANSWERED, facts, choose_on=others, knowledge=knowledge)
    assert all(rows == [r.input_ids for r in others] for rows in seen[:-1])
    assert seen[-1] == [r.input_ids for r in facts]
    np.testing.assert_array_equal(answer_probability(lm, facts), plain)
    assert lm.weights_hash() == weights


def test_an_adapter_comes_off_and_a_model_without_one_says_so():
    import peft

    lm = tiny_lm()
    facts = encode(lm, WITHHELD, ["oda", "kell"])
    plain = answer_probability(lm, facts)
    with pytest.raises(UsageError, match="no adapter"), adapter_detached(lm):
        pass
    lm.model = peft.get_peft_model(lm.model, peft.LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    lm.model.eval()
    changed = answer_probability(lm, facts)
    with adapter_detached(lm):
        np.testing.assert_allclose(answer_probability(lm, facts), plain, rtol=1e-6)
    np.testing.assert_array_equal(answer_probability(lm, facts), changed)
    assert abs(changed - plain).max() > 0
