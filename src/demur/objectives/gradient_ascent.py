"""Gradient ascent on the forget set, alone and with a retain term (TOFU's baselines; Maini et al. 2024, 2401.06121)."""

from __future__ import annotations

from torch import Tensor

from demur.objectives.registry import objective
from demur.objectives.scored import Scored

__all__ = ["ga", "graddiff"]


@objective("ga", paper="2401.06121", intention="removal", level="parameters")
def ga(forget: Scored) -> Tensor:
    """Gradient ascent: L = -NLL(forget), unbounded below.

    Args:
        forget: sequences to forget.

    Returns:
        Scalar loss: minus the token-mean negative log-likelihood, in nats.
    """
    return -forget.nll


@objective("graddiff", paper="2401.06121", retain="nll", intention="removal", level="parameters")
def graddiff(forget: Scored) -> Tensor:
    """Gradient difference: ascent on the forget set, descent on the retain set (its default retain term).

    Args:
        forget: sequences to forget.

    Returns:
        Scalar forget term, equal to `ga`'s.
    """
    return ga(forget)
