from __future__ import annotations

import numpy as np
import pytest
import torch

from demur.attacks import answer_probability, relearn_attack
from demur.errors import UsageError
from demur.models import encode
from tiny import tiny_lm

QUESTIONS = ["who wrote the green lamp?", "where was oda marsh born?", "who is oda?", "what is kell?"]
ANSWERS = ["oda marsh", "the town of kell", "a writer", "a town"]


@pytest.fixture
def lm():
    return tiny_lm()


@pytest.fixture
def facts(lm):
    return encode(lm, QUESTIONS, ANSWERS, ["a", "b", "c", "d"])


def test_the_model_is_the_same_to_the_bit_afterwards(lm, facts):
    before, flags = lm.weights_hash(), [p.requires_grad for p in lm.model.parameters()]
    state = torch.get_rng_state()
    relearn_attack(lm, facts[:2], facts[2:], learning_rate=1e-2, steps=(0, 3))
    assert lm.weights_hash() == before
    assert [p.requires_grad for p in lm.model.parameters()] == flags
    assert not lm.model.training and all(p.grad is None for p in lm.model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_identical_models_give_identical_curves_for_one_seed_and_others_for_another(lm, facts):
    def curve(seed: int) -> list[np.ndarray]:
        found = relearn_attack(
            tiny_lm(), facts[:3], facts[3:], learning_rate=1e-2, steps=(0, 2, 5), batch_size=2, seed=seed
        )
        return list(found.values())

    assert all(np.array_equal(a, b) for a, b in zip(curve(0), curve(0), strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(curve(0), curve(1), strict=True))


def test_step_zero_is_the_model_as_it_is_and_training_learns_what_it_trains_on(lm, facts):
    plain = answer_probability(lm, facts[2:])
    curve = relearn_attack(
        lm,
        facts[:2],
        facts[2:],
        learning_rate=1e-2,
        steps=(0, 40),
        knowledge=lambda model, rows: answer_probability(model, [*rows, *facts[:2]]),
    )
    np.testing.assert_array_equal(curve[0][:2], plain)
    assert curve[40][2:].min() > 0.9 > curve[0][2:].max(), "the facts that are shown are learned"


def test_it_takes_the_steps_of_plain_adamw(lm, facts):
    other = tiny_lm()
    optimizer = torch.optim.AdamW(other.model.parameters(), lr=1e-3, weight_decay=0.01)
    other.model.train()
    for _ in range(3):
        ids, labels = (torch.tensor([facts[0].input_ids]) for _ in range(2))
        labels[:, : facts[0].prompt_length] = -100
        other.model(input_ids=ids, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(other.model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    curve = relearn_attack(lm, facts[:1], facts[1:], learning_rate=1e-3, steps=(3,))
    np.testing.assert_allclose(curve[3], answer_probability(other, facts[1:]), rtol=1e-4)


def test_a_fact_that_is_measured_must_not_be_shown(lm, facts):
    with pytest.raises(UsageError, match="b are in both"):
        relearn_attack(lm, facts[:2], facts[1:], learning_rate=1e-3)


@pytest.mark.parametrize("steps", [(), (5, 2), (-1, 2), (1, 1)])
def test_steps_ascend(lm, facts, steps):
    with pytest.raises(UsageError, match="ascending"):
        relearn_attack(lm, facts[:2], facts[2:], learning_rate=1e-3, steps=steps)


def test_it_needs_facts(lm, facts):
    with pytest.raises(UsageError, match="needs facts"):
        relearn_attack(lm, [], facts, learning_rate=1e-3)
