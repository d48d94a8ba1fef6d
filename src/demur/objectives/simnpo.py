"""SimNPO: negative preference optimisation without a reference (Fan et al. 2024, arXiv 2410.07163)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from demur.objectives.checks import check_beta
from demur.objectives.registry import objective
from demur.objectives.scored import Scored

__all__ = ["simnpo", "simnpo_loss"]


def simnpo_loss(mean_logps: Tensor, beta: float = 4.5, delta: float = 0.0) -> Tensor:
    """Length-normalised, reference-free negative preference loss.

    L = -(2/β) · mean log σ(-β (log π(y|x)/|y| + δ))      (arXiv 2410.07163, eq. 4)

    Args:
        mean_logps: (batch,) label log-probabilities per token under the trained model, in nats.
        beta: inverse temperature, > 0.
        delta: margin, in nats per token; the loss equals NPO's with log π_ref = -δ|y| and β/|y| for β.

    Returns:
        Scalar loss, differentiable in `mean_logps`.

    Raises:
        ValueError: beta is not positive.
    """
    check_beta(beta)
    return -2.0 / beta * F.logsigmoid(-beta * (mean_logps + delta)).mean()


@objective("simnpo", paper="2410.07163", retain="nll", weights=(0.125, 1.0), intention="removal", level="parameters")
def simnpo(forget: Scored, beta: float = 4.5, delta: float = 0.0) -> Tensor:
    """SimNPO: push the per-token likelihood of forget sequences down, with no reference model.

    Args:
        forget: sequences to forget.
        beta: inverse temperature, > 0.
        delta: margin, in nats per token.

    Returns:
        Scalar loss; see `simnpo_loss` (arXiv 2410.07163, eq. 4).
    """
    return simnpo_loss(forget.mean_logps, beta, delta)
