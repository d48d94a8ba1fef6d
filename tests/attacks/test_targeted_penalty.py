from __future__ import annotations

import pytest
import torch

from demur.attacks.targeted_penalty import penalised_loss, targeted_penalty_loss
from demur.data import Encoded, collate
from demur.errors import UsageError
from demur.models import score
from tiny import tiny_lm


def test_two_examples_of_loss_one_half_of_which_one_violates() -> None:
    losses = torch.tensor([0.5, 0.5], requires_grad=True)
    loss = targeted_penalty_loss(losses, torch.tensor([True, False]), 10.0)
    assert loss.item() == pytest.approx(2.75)
    loss.backward()
    assert losses.grad is not None and losses.grad.tolist() == [5.0, 0.5]


def test_without_penalty_or_violation_it_is_the_plain_mean() -> None:
    losses = torch.tensor([0.3, 1.2, 0.6])
    none, all_ = torch.zeros(3, dtype=torch.bool), torch.ones(3, dtype=torch.bool)
    assert targeted_penalty_loss(losses, none, 10.0).item() == pytest.approx(0.7)
    assert targeted_penalty_loss(losses, all_, 1.0).item() == pytest.approx(0.7)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(UsageError, match="at least 1"):
        targeted_penalty_loss(torch.ones(2), torch.ones(2), 0.5)
    with pytest.raises(UsageError, match="cannot be weighted"):
        targeted_penalty_loss(torch.ones(2), torch.ones(3))


def test_a_target_counts_more_until_its_likeliest_first_token_begins_a_refusal() -> None:
    lm = tiny_lm()
    rows = [Encoded([1, 9, 8, 12, 13, 2], 3, "a"), Encoded([1, 7, 20, 2], 2, "b"), Encoded([1, 5, 6, 7, 30, 2], 4, "c")]
    batch = collate(rows, lm.pad_id)
    with torch.no_grad():
        logits = lm.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    likeliest = [int(logits[i, row.prompt_length - 1].argmax()) for i, row in enumerate(rows)]
    scored = score(lm.model, batch)
    plain = -scored.mean_logps.detach()
    target = torch.tensor([True, True, False])

    def weights(starts: list[int]) -> list[float]:
        value = penalised_loss(scored, target, starts, 10.0).item()
        for first in (1.0, 10.0):
            for second in (1.0, 10.0):
                if value == pytest.approx((first * plain[0] + second * plain[1] + plain[2]).item() / 3, rel=1e-4):
                    return [first, second]
        raise AssertionError(value)

    unseen = next(token for token in range(97) if token not in likeliest)
    assert weights([unseen]) == [10.0, 10.0]
    both = sorted(set(likeliest[:2]))
    assert weights(both) == [1.0, 1.0]
    if likeliest[0] != likeliest[1]:
        assert weights([likeliest[0]]) == [1.0, 10.0]
