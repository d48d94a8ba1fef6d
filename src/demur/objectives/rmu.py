"""RMU: representation misdirection for unlearning (Li et al. 2024, arXiv 2403.03218)."""

from __future__ import annotations

import torch
from torch import Tensor

from demur.objectives.checks import check_not_negative
from demur.objectives.registry import objective
from demur.objectives.scored import Scored

__all__ = ["control_vector", "embed_diff", "rmu", "state_distance"]


def control_vector(size: int, coefficient: float, seed: int = 0) -> Tensor:
    """A fixed random direction of length `coefficient`: s · u / |u| with u uniform in [0, 1).

    Args:
        size: of the hidden state.
        coefficient: s.
        seed: decides the direction.

    Returns:
        (size,) float32, the same at every call.
    """
    direction = torch.rand(size, generator=torch.Generator().manual_seed(seed))
    return coefficient * direction / direction.norm()


def state_distance(states: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean over sequences of the mean over their labels of the mean over features of (h - target)².

    Args:
        states: (labels, hidden) in row-major order of `mask`.
        target: (hidden,) or (labels, hidden); no gradient flows into it.
        mask: (batch, length) bool.

    Returns:
        Scalar, differentiable in `states`.
    """
    precise = states.to(torch.promote_types(states.dtype, torch.float32))
    flat = (precise - target.detach().to(precise)).square().mean(1)
    values = torch.zeros(mask.shape, dtype=flat.dtype, device=flat.device).masked_scatter(mask, flat)
    return (values.sum(1) / mask.sum(1)).mean()


@objective(
    "rmu", paper="2403.03218", retain="embed_diff", intention="suppression", level="representation", logits=False
)
def rmu(forget: Scored, layer: int = 7, coefficient: float = 2.0, seed: int = 0) -> Tensor:
    """RMU: push one layer's hidden states on forget answers towards a fixed random vector.

    L = mean over sequences of (1/n) Σ over answer tokens of mean (h - s·u)²      (arXiv 2403.03218)

    Args:
        forget: sequences to forget.
        layer: decoder layer, from 0, or negative from the end.
        coefficient: s, the vector's length.
        seed: decides its direction u.

    Returns:
        Scalar loss, in squared units of the hidden state.

    Raises:
        ValueError: the coefficient or the seed is negative.
    """
    check_not_negative(coefficient=coefficient, seed=seed)
    states = forget.label_states(layer)
    return state_distance(states, control_vector(states.shape[1], coefficient, seed), forget.mask)


@objective("embed_diff", paper="2403.03218", reference=True, logits=False)
def embed_diff(retain: Scored, layer: int = 7) -> Tensor:
    """Distance of one layer's hidden states on retain answers from the frozen model's, RMU's own retain term.

    Args:
        retain: sequences on which the model should stay as it was.
        layer: decoder layer, from 0, or negative from the end; RMU's own layer when it goes with RMU.

    Returns:
        Scalar loss, in squared units of the hidden state.
    """
    return state_distance(retain.label_states(layer), retain.reference.label_states(layer), retain.mask)
