"""Forgetting without labels: losses on features alone (Shen et al. 2024, arXiv 2404.00506)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from demur.objectives.checks import check_same_shape

__all__ = ["laf_alignment_loss", "laf_extractor_loss"]


def laf_extractor_loss(
    recon_retain: Tensor, features_retain: Tensor, recon_forget: Tensor, features_forget: Tensor
) -> Tensor:
    """Retained features stay where an autoencoder can rebuild them; features to forget go where none can.

    L = Σ_retain ν(‖ê - e‖²) - Σ_forget ν(‖ê - e‖²),  ν(d) = exp(d / (d + 1))      (arXiv 2404.00506, eq. 7)

    ν lies in [1, e) and is flat far out: a row that cannot be rebuilt at all pulls no more.

    Args:
        recon_retain: (retain rows, features), e as rebuilt by the autoencoder of all training features.
        features_retain: (retain rows, features), e under the model that is being changed.
        recon_forget: (forget rows, features), e as rebuilt by the autoencoder of the features to forget.
        features_forget: (forget rows, features).

    Returns:
        Scalar loss, differentiable in all arguments.

    Raises:
        ValueError: shapes differ, or a side has no rows.
    """
    check_same_shape(recon_retain, features_retain)
    check_same_shape(recon_forget, features_forget)
    _require_rows(features_retain, features_forget)
    return _bounded(recon_retain, features_retain).sum() - _bounded(recon_forget, features_forget).sum()


def laf_alignment_loss(
    features_retain: Tensor,
    teacher_retain: Tensor,
    features_forget: Tensor,
    teacher_forget: Tensor,
    temperature: float = 20.0,
) -> Tensor:
    """Retained features keep the direction they had; features to forget leave theirs.

    L = Σ_retain [c - log Σ_forget exp(c' / τ)],  c = 1 - cos(e, e_before)      (arXiv 2404.00506, eq. 9)

    At the model's own features every c is 0, the loss is -B log B_forget, and its gradient vanishes.

    Args:
        features_retain: (retain rows, features) under the model that is being changed.
        teacher_retain: the same under the model before; no gradient flows into it.
        features_forget: (forget rows, features).
        teacher_forget: the same under the model before; no gradient flows into it.
        temperature: τ > 0.

    Returns:
        Scalar loss, differentiable in the features.

    Raises:
        ValueError: shapes differ, a side has no rows, or τ is not positive.
    """
    check_same_shape(features_retain, teacher_retain)
    check_same_shape(features_forget, teacher_forget)
    _require_rows(features_retain, features_forget)
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, not {temperature}")
    kept = 1 - F.cosine_similarity(features_retain, teacher_retain.detach())
    left = 1 - F.cosine_similarity(features_forget, teacher_forget.detach())
    return kept.sum() - len(kept) * torch.logsumexp(left / temperature, 0)


def _bounded(recon: Tensor, features: Tensor) -> Tensor:
    distance = (recon - features).square().sum(1)
    return torch.exp(distance / (distance + 1))


def _require_rows(retain: Tensor, forget: Tensor) -> None:
    if not len(retain) or not len(forget):
        raise ValueError(f"both sides need rows, not {len(retain)} to retain and {len(forget)} to forget")
