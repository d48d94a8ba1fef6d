"""PDU: primal-dual unlearning by flattened logits (Entesari et al. 2025, arXiv 2506.05314)."""

from __future__ import annotations

from torch import Tensor

from demur.objectives.registry import objective
from demur.objectives.scored import Scored

__all__ = ["dual_step", "pdu"]


@objective(
    "pdu", paper="2506.05314", retain="nll", weights=(1.0, 50.0), intention="removal", level="logits", limit=True
)
def pdu(forget: Scored) -> Tensor:
    """PDU: flatten the logits that predict the answer, while the retain loss stays below a limit.

    L = mean over tokens of (max z - mean z)²      (arXiv 2506.05314)

    The whole loss is L + λ · (NLL(retain) - ε): λ starts at the retain weight and is moved by `dual_step`.

    Args:
        forget: sequences to forget.

    Returns:
        Scalar loss, in squared logits.
    """
    return forget.token_mean(forget.logit_margins.square())


def dual_step(multiplier: float, excess: float, rate: float) -> float:
    """One step of dual ascent: λ ← max(0, λ + η · (retain loss - ε)).

    Args:
        multiplier: λ, at least 0.
        excess: by how much the retain loss is above its limit; negative below it.
        rate: η, > 0.

    Returns:
        The new λ.
    """
    return max(0.0, multiplier + rate * excess)
