"""FLAT: forgetting with the forget set and template answers alone (Wang et al. 2024, arXiv 2410.11143)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from demur.objectives.checks import check_same_shape
from demur.objectives.registry import objective
from demur.objectives.scored import Scored

__all__ = ["DIVERGENCES", "flat", "flat_loss"]

Link = Callable[[Tensor], Tensor]

# Name → g* and f*(g*), both as functions of a probability: the variational bound of D_f at its best witness. Published
# code has e^v for e^-v in the last three and so makes templates less likely, and with two of them the answers more so.
DIVERGENCES: dict[str, tuple[Link, Link]] = {
    "tv": (lambda v: torch.tanh(v) / 2, lambda v: torch.tanh(v) / 2),
    "kl": (lambda v: v, lambda v: torch.exp(v - 1)),
    "js": (lambda v: math.log(2) + F.logsigmoid(v), lambda v: F.softplus(v) - math.log(2)),
    "pearson": (lambda v: v, lambda v: v + v**2 / 4),
    # The conjugate has no closed form; these are the first terms of its series, 1 % low at v = 0.9.
    "jeffrey": (lambda v: v, lambda v: v + v**2 / 4 + v**3 / 16),
    "hellinger": (lambda v: 1 - torch.exp(-v), lambda v: torch.exp(v) - 1),
    "reverse_kl": (lambda v: -torch.exp(-v), lambda v: v - 1),
    "neyman": (lambda v: 1 - torch.exp(-v), lambda v: 2 - 2 * torch.exp(-v / 2)),
}


def flat_loss(template_probs: Tensor, forget_probs: Tensor, divergence: str = "tv") -> Tensor:
    """Variational f-divergence between template answers and answers to forget, negated.

    L = -[g*(P_e) - f*(g*(P_f))], P the mean of the batch      (arXiv 2410.11143; g* and f*: `DIVERGENCES`)

    Its gradient raises P_e and lowers P_f for every divergence and all probabilities.

    Args:
        template_probs: (batch,) mean token probability of each template answer, in [0, 1].
        forget_probs: (batch,) the same of each answer to forget.
        divergence: a name in `DIVERGENCES`.

    Returns:
        Scalar loss, differentiable in both.

    Raises:
        ValueError: the divergence is unknown or the shapes differ.
    """
    if divergence not in DIVERGENCES:
        raise ValueError(f"unknown divergence {divergence!r}: use {', '.join(DIVERGENCES)}")
    check_same_shape(template_probs, forget_probs)
    activation, conjugate = DIVERGENCES[divergence]
    return conjugate(forget_probs.mean()) - activation(template_probs.mean())


@objective("flat", paper="2410.11143", forget_only=True, intention="suppression", level="parameters")
def flat(alternate: Scored, forget: Scored, divergence: str = "tv", normalise: str = "answer") -> Tensor:
    """FLAT: towards template answers and away from the answers to forget, with nothing else at hand.

    Probabilities, not their logarithms, are averaged: the push towards an answer that the model never gives and away
    from one that it has forgotten both vanish. Averages over the forward pass's batch are taken first.

    Args:
        alternate: the forget prompts answered by a template.
        forget: sequences to forget.
        divergence: tv, kl, js, pearson, jeffrey, hellinger, reverse_kl or neyman.
        normalise: "answer" divides a sequence's summed token probabilities by its answer's tokens; "padded" by the
            positions of the longest sequence, as published code does with sequences padded to 500 tokens.

    Returns:
        Scalar loss; see `flat_loss` (arXiv 2410.11143).

    Raises:
        ValueError: the divergence or the normalisation is unknown, or an answer has no tokens.
    """
    if normalise not in ("answer", "padded"):
        raise ValueError(f"unknown normalisation {normalise!r}: use answer or padded")
    pair = (alternate, forget)
    if any(bool((side.lengths == 0).any()) for side in pair):
        raise ValueError("an answer has no tokens: it has no probability")
    sums = [(side.token_logps.exp() * side.mask).sum(1) for side in pair]
    positions = max(side.mask.shape[1] for side in pair) - 1
    template, answer = (
        total / (side.lengths if normalise == "answer" else positions) for total, side in zip(sums, pair, strict=True)
    )
    return flat_loss(template, answer, divergence)
