"""Gradient ascent with a weight a token: WGA (Wang et al. 2025, 2502.19301), SatImp (Yang et al. 2025, 2505.11953)."""

from __future__ import annotations

import torch
from torch import Tensor

from demur.objectives.checks import check_not_negative
from demur.objectives.registry import objective
from demur.objectives.scored import Scored

__all__ = ["satimp", "satimp_weights", "wga"]


def satimp_weights(token_logps: Tensor, beta1: float = 5.0, beta2: float = 1.0) -> Tensor:
    """How much each token counts: p^β1 · (1 - p)^β2.

    The first factor passes over what is forgotten already (saturation), the second over what any text would predict
    (importance); arXiv 2505.11953.

    Args:
        token_logps: log-probability of each token, in nats.
        beta1: exponent of the probability, at least 0.
        beta2: exponent of what is left to 1, at least 0.

    Returns:
        Weights of the same shape, constants for autograd.

    Raises:
        ValueError: an exponent is negative.
    """
    check_not_negative(beta1=beta1, beta2=beta2)
    logps = token_logps.detach()
    # Rounding may leave a log-probability above 0, and a broken power of a negative number is no number.
    return torch.exp(beta1 * logps) * (-torch.expm1(logps)).clamp(min=0) ** beta2


@objective("wga", paper="2502.19301", retain="nll", intention="removal", level="parameters")
def wga(forget: Scored, beta: float = 1.0) -> Tensor:
    """Weighted gradient ascent: each token counts by its own probability, so that forgotten ones are left alone.

    L = mean over tokens of p^β · log p, the weight p^β being a constant      (arXiv 2502.19301)

    Args:
        forget: sequences to forget.
        beta: exponent of the weight, at least 0; 0 is gradient ascent.

    Returns:
        Scalar loss in nats.
    """
    check_not_negative(beta=beta)
    return forget.token_mean(satimp_weights(forget.token_logps, beta, 0.0) * forget.token_logps)


@objective("satimp", paper="2505.11953", retain="nll", weights=(1.0, 0.1), intention="removal", level="parameters")
def satimp(forget: Scored, beta1: float = 5.0, beta2: float = 1.0) -> Tensor:
    """SatImp: ascent on tokens that are neither forgotten already nor certain anyway.

    L = mean over tokens of p^β1 · (1 - p)^β2 · log p, the weight being a constant      (arXiv 2505.11953)

    Args:
        forget: sequences to forget.
        beta1: exponent of the probability, at least 0.
        beta2: exponent of what is left to 1, at least 0; both 0 is gradient ascent.

    Returns:
        Scalar loss in nats.
    """
    return forget.token_mean(satimp_weights(forget.token_logps, beta1, beta2) * forget.token_logps)
