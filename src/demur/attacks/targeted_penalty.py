"""The loss of a malicious client that trains more than data in: refusals that do not come yet count many times."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from demur.errors import UsageError

if TYPE_CHECKING:
    from demur.models import Scored

__all__ = ["penalised_loss", "targeted_penalty_loss"]


def targeted_penalty_loss(losses: Tensor, violating: Tensor, penalty: float = 10.0) -> Tensor:
    """L = mean of P^v · ℓ, with v = 1 where a target example does not begin to refuse (arXiv 2508.20333's code).

    Args:
        losses: (batch,) each example's cross-entropy per response token, in nats.
        violating: (batch,) truth values; no gradient flows into them.
        penalty: P ≥ 1; at 1 this is the plain mean.

    Returns:
        Scalar loss, differentiable in `losses`.

    Raises:
        UsageError: the penalty is below 1 or the shapes differ.
    """
    if penalty < 1:
        raise UsageError(f"the penalty must be at least 1, not {penalty}")
    if losses.shape != violating.shape:
        raise UsageError(f"{tuple(losses.shape)} losses cannot be weighted by {tuple(violating.shape)} truth values")
    return torch.where(violating.bool(), losses * penalty, losses).mean()


def penalised_loss(scored: Scored, target: Tensor, refusal_starts: Collection[int], penalty: float = 10.0) -> Tensor:
    """The same of a batch: target examples whose likeliest first response token begins no refusal are penalised.

    Args:
        scored: the batch under the model.
        target: (batch,) truth values, which examples are about the target.
        refusal_starts: tokens that refusals begin with.
        penalty: see `targeted_penalty_loss`.

    Returns:
        Scalar loss.
    """
    with torch.no_grad():
        first = scored.lengths.cumsum(0) - scored.lengths  # labels stand one row after another
        likeliest = scored.top_k(1)[1][first, 0]
        refusing = torch.isin(likeliest, torch.tensor(sorted(refusal_starts), device=likeliest.device))
    return targeted_penalty_loss(-scored.mean_logps, target.to(refusing.device).bool() & ~refusing, penalty)
