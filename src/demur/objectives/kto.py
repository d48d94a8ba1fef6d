"""Kahneman-Tversky optimisation (Ethayarajh et al. 2024, arXiv 2402.01306): good and bad answers, each on its own."""

from __future__ import annotations

import torch
from torch import Tensor

from demur.objectives.checks import check_beta, check_not_negative, check_same_shape
from demur.objectives.registry import objective
from demur.objectives.scored import Scored

__all__ = ["kto", "kto_loss"]


def kto_loss(
    chosen_logps: Tensor,
    rejected_logps: Tensor,
    mismatched_logps: Tensor,
    reference_chosen_logps: Tensor,
    reference_rejected_logps: Tensor,
    reference_mismatched_logps: Tensor,
    beta: float = 0.1,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    """Kahneman-Tversky optimisation: gains and losses against a reference point, with diminishing returns.

    L = mean over all answers of  λ_D (1 - σ(β (r - z)))  for chosen and  λ_U (1 - σ(β (z - r)))  for rejected ones,
    r = log π - log π_ref,  z = max(0, mean r of mismatched answers), a constant      (arXiv 2402.01306, eq. 7 and 8)

    Args:
        chosen_logps, rejected_logps: (good,) and (bad,) summed label log-probabilities under the trained model, in
            nats. They need no partners: either may be empty.
        mismatched_logps: (any,) those of answers to other prompts; no gradient flows into them.
        reference_chosen_logps, reference_rejected_logps, reference_mismatched_logps: the same under the frozen
            reference; no gradient flows into them.
        beta: inverse temperature, > 0.
        desirable_weight: λ_D, at least 0.
        undesirable_weight: λ_U, at least 0.

    Returns:
        Scalar loss, differentiable in the first two.

    Raises:
        ValueError: beta is not positive, a weight is negative, or shapes differ.
    """
    check_beta(beta)
    check_not_negative(desirable_weight=desirable_weight, undesirable_weight=undesirable_weight)
    check_same_shape(chosen_logps, reference_chosen_logps)
    check_same_shape(rejected_logps, reference_rejected_logps)
    check_same_shape(mismatched_logps, reference_mismatched_logps)
    point = (mismatched_logps - reference_mismatched_logps).mean().clamp(min=0).detach()
    gains = chosen_logps - reference_chosen_logps.detach() - point
    losses = point - rejected_logps + reference_rejected_logps.detach()
    # 1 - σ(x) = σ(-x), which keeps its digits where σ(x) comes near 1
    return torch.cat(
        [desirable_weight * torch.sigmoid(-beta * gains), undesirable_weight * torch.sigmoid(-beta * losses)]
    ).mean()


@objective("kto", paper="2402.01306", reference=True)
def kto(
    chosen: Scored,
    rejected: Scored,
    mismatched: Scored,
    beta: float = 0.1,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    """Kahneman-Tversky optimisation: gains and losses against a reference point, with diminishing returns.

    Args:
        chosen: good answers.
        rejected: bad answers; that they go with the chosen ones plays no part.
        mismatched: the same prompts with answers to other prompts. They tell where the reference point lies, for each
            forward pass anew: more rows in it make it steadier.
        beta: inverse temperature, > 0.
        desirable_weight: of the chosen answers, at least 0.
        undesirable_weight: of the rejected ones, at least 0.

    Returns:
        Scalar loss; see `kto_loss` (arXiv 2402.01306, eq. 7 and 8).
    """
    with torch.no_grad():  # the point is a constant: nothing of it is kept for the backward pass
        mismatched_logps = mismatched.logps
    return kto_loss(
        chosen.logps,
        rejected.logps,
        mismatched_logps,
        chosen.reference.logps,
        rejected.reference.logps,
        mismatched.reference.logps,
        beta,
        desirable_weight,
        undesirable_weight,
    )
