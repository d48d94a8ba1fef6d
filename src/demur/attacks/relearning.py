"""Relearning: fine-tune on some facts and see whether others come back (Deeb & Roger 2024, arXiv 2410.08827).

A model from which knowledge is gone has to learn the facts it is shown and learns nothing of the others. One that
only hides them gets the others back as well. The same steps must be spent on a control that never saw any of them.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from demur.attacks.knowledge import answer_probability
from demur.attacks.weights import restored
from demur.data.batch import collate
from demur.errors import UsageError
from demur.models.scored import joint_score
from demur.training.objective import Objective
from demur.training.plan import paired_plan

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from demur.data import Encoded
    from demur.models import LanguageModel

__all__ = ["STEPS", "relearn_attack"]

STEPS = (0, 5, 15, 30, 60)


def relearn_attack(
    lm: LanguageModel,
    train: Sequence[Encoded],
    evaluate: Sequence[Encoded],
    *,
    learning_rate: float,
    steps: Sequence[int] = STEPS,
    batch_size: int = 8,
    seed: int = 0,
    knowledge: Callable[[LanguageModel, Sequence[Encoded]], NDArray[np.float64]] = answer_probability,
) -> dict[int, NDArray[np.float64]]:
    """Fine-tune all weights on `train` with a fresh AdamW at a constant rate, and measure `evaluate` on the way.

    Args:
        lm: the model; its weights are the same to the bit afterwards.
        train: the facts that the attacker has.
        evaluate: other facts, which must not be among those.
        learning_rate: the one that unlearning used is a fair first try.
        steps: after which optimizer steps to measure, ascending; 0 is before the first.
        batch_size: facts in one step; fewer facts make smaller steps.
        seed: decides the order of the facts.
        knowledge: what is measured, one number a fact.

    Returns:
        step → (n,) what is known of each fact of `evaluate`.

    Raises:
        UsageError: a fact is in both sets, a set is empty, or the steps are not ascending.
    """
    _check(train, evaluate, steps)
    size = min(batch_size, len(train))
    per_epoch = len(train) // size
    order = paired_plan({"examples": train}, {}, epochs=math.ceil(max(steps) / per_epoch) or 1, seed=seed).order[
        "examples"
    ]
    batches = [epoch[i * size : (i + 1) * size] for epoch in order for i in range(per_epoch)]
    objective = Objective.make("sft")
    found = {0: knowledge(lm, evaluate)} if 0 in steps else {}
    with _trainable(lm.model, seed) as weights:
        optimizer = torch.optim.AdamW(weights, lr=learning_rate, weight_decay=0.01)
        for step, rows in enumerate(batches[: max(steps)], 1):
            lm.model.train()
            batch = collate([train[i] for i in rows], lm.pad_id)
            loss, _ = objective(joint_score(lm.model, {"examples": batch}, {}, lm.pad_id))
            loss.backward()
            nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if step in steps:
                found[step] = knowledge(lm, evaluate)
    return found


def _check(train: Sequence[Encoded], evaluate: Sequence[Encoded], steps: Sequence[int]) -> None:
    if not train or not evaluate:
        raise UsageError("relearning needs facts to train on and other facts to measure")
    if not steps or list(steps) != sorted(set(steps)) or steps[0] < 0:
        raise UsageError(f"the steps to measure after must be ascending and not negative, not {list(steps)}")
    known = {tuple(item.input_ids) for item in train}
    both = [item.id for item in evaluate if tuple(item.input_ids) in known]
    if both:
        raise UsageError(f"relearning is measured on facts it does not train on: {', '.join(both[:5])} are in both")


@contextlib.contextmanager
def _trainable(model: Any, seed: int) -> Iterator[list[nn.Parameter]]:
    """All weights, ready to be trained; weights, flags, mode and random state are as before when the block ends."""
    weights = [p for p in model.parameters() if p.is_floating_point()]
    flags, mode = [p.requires_grad for p in weights], model.training
    devices = [weights[0].device] if weights[0].device.type == "cuda" else []
    with restored(weights), torch.random.fork_rng(devices=devices), torch.enable_grad():
        torch.manual_seed(seed)
        for weight in weights:
            weight.requires_grad_(True)
        try:
            yield weights
        finally:
            for weight, flag in zip(weights, flags, strict=True):
                weight.grad = None
                weight.requires_grad_(flag)
            model.train(mode)
