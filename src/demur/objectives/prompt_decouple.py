"""Prompt decoupling: keep the question answerable where it is harmless (Chen et al. 2025, arXiv 2502.12520)."""

from __future__ import annotations

from torch import Tensor

from demur.objectives.registry import objective
from demur.objectives.scored import Scored

__all__ = ["decoupled", "idk", "prompt_decouple_loss"]


def prompt_decouple_loss(unlearning: Tensor, decoupled_nll: Tensor, weight: float = 1.0) -> Tensor:
    """Any unlearning loss with the prompt-decouple term added.

    L = L_unlearn + λ · CE(decoupled)      (arXiv 2502.12520, section 4; λ = 0.5 or 1)

    Args:
        unlearning: scalar, the whole loss of the base method, its retain term included.
        decoupled_nll: scalar, token-mean negative log-likelihood of the normal answers to the forget questions beside
            harmless pictures, in nats.
        weight: λ, at least 0; at 0 the loss is the base method's.

    Returns:
        Scalar loss, differentiable in both.

    Raises:
        ValueError: the weight is negative.
    """
    if weight < 0:
        raise ValueError(f"the weight of decoupled rows must not be negative, not {weight}")
    return unlearning if weight == 0 else unlearning + weight * decoupled_nll


@objective("decoupled", paper="2502.12520")
def decoupled(decoupled: Scored) -> Tensor:
    """The prompt-decouple term: likelihood of normal answers to the forget questions where these are harmless.

    It is added to any objective by `--decoupled ROWS` (arXiv 2502.12520).

    Args:
        decoupled: row by row the forget questions, each with another picture and its normal answer.

    Returns:
        Scalar loss: token-mean negative log-likelihood, in nats.
    """
    return decoupled.nll


@objective("idk", paper="2502.12520", retain="nll", intention="suppression", level="parameters")
def idk(alternate: Scored) -> Tensor:
    """Preference optimisation as SafeEraser has it: learn a refusal, drawn anew at every visit, for each forget row.

    With its retain term this is the likelihood of refusals and of retain rows (arXiv 2502.12520, there called PO),
    each averaged over its own tokens.

    Args:
        alternate: the forget prompts answered by a refusal.

    Returns:
        Scalar loss: token-mean negative log-likelihood of the refusals, in nats.
    """
    return alternate.nll
