"""A small language model over a handful of symbols, and the plain training loop that studies of losses use."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from demur.data.batch import Encoded, collate
from demur.models import Scored, score

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

__all__ = ["descend", "score_rows", "small_llama"]


def small_llama(symbols: int, width: int, seed: int) -> LlamaForCausalLM:
    """Two layers with four heads and random weights; seeds torch's global random state."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=symbols,
            hidden_size=width,
            intermediate_size=3 * width,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            initializer_range=0.06,
            tie_word_embeddings=False,
        )
    )


def score_rows(model: torch.nn.Module, rows: list[Encoded]) -> Scored:
    """Score rows of symbols; what pads the shorter ones is never looked at, so any symbol will do."""
    return score(model, collate(rows, 0))


def descend(
    model: torch.nn.Module,
    loss: Callable[[list[int]], Tensor],
    *,
    rows: int,
    batch: int,
    steps: int,
    seed: int,
    optimizer: torch.optim.Optimizer,
) -> None:
    """Take steps on random batches of row numbers, gradients cut to norm 1.

    Args:
        model: changed in place, left in evaluation mode.
        loss: of a batch, given its row numbers.
        rows: how many there are to draw from.
        batch: rows in a step, without repetition.
        steps: how many.
        seed: decides the batches.
        optimizer: over the model's parameters.
    """
    generator = np.random.default_rng(seed)
    model.train()
    for _ in range(steps):
        value = loss(generator.choice(rows, size=batch, replace=False).tolist())
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    model.eval()
