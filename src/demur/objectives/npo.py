"""Negative preference optimisation (Zhang et al. 2024, arXiv 2404.05868)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from demur.objectives.checks import check_beta, check_same_shape
from demur.objectives.registry import objective
from demur.objectives.scored import Scored

__all__ = ["npo", "npo_loss"]


def npo_loss(logps: Tensor, reference_logps: Tensor, beta: float = 0.1) -> Tensor:
    """Negative preference optimisation on forget sequences.

    L = -(2/β) · mean log σ(-β (log π - log π_ref))      (arXiv 2404.05868, eq. 3)

    Its gradient is gradient ascent's, each sequence weighted by 2σ(β (log π - log π_ref)): 1 at the start, 0 once
    the sequence is forgotten.

    Args:
        logps: (batch,) summed label log-probabilities under the trained model, in nats.
        reference_logps: (batch,) the same under the frozen reference; no gradient flows into it.
        beta: inverse temperature, > 0. As beta → 0 the gradient tends to gradient ascent's.

    Returns:
        Scalar loss, differentiable in `logps`.

    Raises:
        ValueError: beta is not positive or the shapes differ.
    """
    check_beta(beta)
    check_same_shape(logps, reference_logps)
    return -2.0 / beta * F.logsigmoid(-beta * (logps - reference_logps.detach())).mean()


@objective("npo", paper="2404.05868", reference=True, intention="removal", level="parameters")
def npo(forget: Scored, beta: float = 0.1) -> Tensor:
    """Negative preference optimisation: push forget sequences below the reference, ever less as they are forgotten.

    Args:
        forget: sequences to forget.
        beta: inverse temperature, > 0 (0.1 in the paper).

    Returns:
        Scalar loss; see `npo_loss` (arXiv 2404.05868, eq. 3).
    """
    return npo_loss(forget.logps, forget.reference.logps, beta)
