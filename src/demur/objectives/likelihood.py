"""Objectives that keep or teach: likelihood, and nearness to the reference model."""

from __future__ import annotations

from torch import Tensor

from demur.objectives.registry import objective
from demur.objectives.scored import Scored

__all__ = ["kl", "nll", "sft"]


@objective("nll")
def nll(retain: Scored) -> Tensor:
    """Negative log-likelihood of the retain set.

    Args:
        retain: sequences to keep.

    Returns:
        Scalar loss, mean over label tokens, in nats.
    """
    return retain.nll


@objective("kl", paper="2401.06121", reference="distribution")
def kl(retain: Scored) -> Tensor:
    """KL(reference ‖ model) on the retain set, mean over label tokens.

    Published code averages over prompt and padding too, which makes the loss depend on how a batch is padded.

    Args:
        retain: sequences on which the model should stay as it was.

    Returns:
        Scalar loss in nats.
    """
    return retain.kl(retain.reference)


@objective("sft")
def sft(examples: Scored) -> Tensor:
    """Supervised fine-tuning: negative log-likelihood of the responses.

    Args:
        examples: sequences to learn.

    Returns:
        Scalar loss, mean over label tokens, in nats.
    """
    return examples.nll
