"""Supervised contrastive loss: samples of a class are drawn together, all others pushed away."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["supcon"]


def supcon(
    z: Tensor, labels: Tensor, temperature: float = 0.1, base_temperature: float = 0.07, reduction: str = "mean"
) -> Tensor:
    """Supervised contrastive loss (Khosla et al. 2020, arXiv 2004.11362, eq. 2).

    L_i = -(τ/τ_0) · 1/|P(i)| Σ_{p ∈ P(i)} log [exp(z_i·z_p/τ) / Σ_{a ≠ i} exp(z_i·z_a/τ)], P(i) the rest of i's class

    Args:
        z: (samples, dimensions), all views of all inputs; brought to length 1 here.
        labels: (samples,) class numbers; they say only which samples belong together.
        temperature: τ > 0.
        base_temperature: τ_0 > 0; the factor τ/τ_0 keeps the gradient's size as τ changes.
        reduction: "mean", or "none" for one loss an anchor.

    Returns:
        Scalar loss, or (samples,) losses, differentiable in `z`.

    Raises:
        ValueError: a temperature is not positive, the numbers of rows differ, or a class has one sample only: every
            input needs two views.
    """
    if not (temperature > 0 and base_temperature > 0):
        raise ValueError(f"temperatures must be positive, not {temperature} and {base_temperature}")
    if z.ndim != 2 or labels.shape != z.shape[:1]:
        raise ValueError(f"supcon needs (samples, dimensions) and (samples,) labels, not {z.shape} and {labels.shape}")
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    positive = (labels[:, None] == labels[None]) & ~itself
    alone = (~positive.any(1)).nonzero()
    if len(alone):
        raise ValueError(f"class {int(labels[alone[0]])} has one sample only: give at least two views of every input")
    unit = F.normalize(z, dim=1)
    logps = (unit @ unit.T / temperature).masked_fill(itself, -torch.inf).log_softmax(1)
    losses = -logps.where(positive, 0.0).sum(1) / positive.sum(1) * (temperature / base_temperature)
    return losses if reduction == "none" else losses.mean()
