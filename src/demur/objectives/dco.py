"""Direct coverage optimisation: the loss of whoever may draw n answers (Chen et al. 2025, arXiv 2502.07154)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from demur.objectives.checks import check_same_shape
from demur.objectives.registry import objective
from demur.objectives.scored import Scored

__all__ = ["dco", "dco_approx_loss", "dco_factor", "dco_loss", "dco_step", "dco_step_loss"]

_CERTAIN = -1e-7  # nearest to 0 that a log-probability is told apart from it
_TINY = -30.0  # below it, 1 - p is 1 in double precision and series take over


def _log1mexp(x: Tensor) -> Tensor:
    """log(1 - e^x) for x < 0."""
    return torch.where(x > -math.log(2), torch.log(-torch.expm1(x)), torch.log1p(-torch.exp(x)))


def _loss_and_factor(sequence_logps: Tensor, n: float) -> tuple[Tensor, Tensor]:
    """ℓ_n and F(n, p) of log-probabilities, computed in double precision, without a gradient."""
    if not (n >= 1 and math.isfinite(n)):
        raise ValueError(f"n must be a number of at least 1, not {n}")
    s = sequence_logps.detach().double()
    if bool((s > 1e-4).any()):
        raise ValueError("a log-probability is positive: pass sums of log-probabilities, not probabilities or losses")
    if n == 1:
        return -s, torch.ones_like(s)
    s = s.clamp(max=_CERTAIN)
    fail = _log1mexp(s)
    ordinary = -_log1mexp(n * fail)
    x = n * s.exp()  # -log((1 - e^-x) / x) = x/2 - x²/24 + …
    loss = torch.where(s < _TINY, -s - math.log(n) + x / 2 - x**2 / 24, ordinary)
    log_factor = torch.where(s < _TINY, (n - 1) * fail + x / 2 - x**2 / 24, math.log(n) + (n - 1) * fail + s + loss)
    return loss, log_factor.exp()


def _losses(sequence_logps: Tensor, n: float) -> tuple[Tensor, Tensor]:
    """ℓ_n of each sequence, differentiable through -F(n, p) · d(log p), and F."""
    loss, factor = (part.to(sequence_logps.dtype) for part in _loss_and_factor(sequence_logps, n))
    # A sequence that cannot be written at all would make 0 · inf of the second term.
    change = torch.where(sequence_logps.isfinite(), sequence_logps - sequence_logps.detach(), 0.0)
    return loss - factor * change, factor


def dco_factor(n: float, p: Tensor) -> Tensor:
    """What DCO's gradient is of cross entropy's: F(n, p) = n (1 - p)^(n-1) p / (1 - (1 - p)^n).

    Args:
        n: answers that may be drawn, at least 1.
        p: any shape, probabilities of whole answers.

    Returns:
        The same shape, in [0, 1]: 1 for n = 1 or p → 0, falling with p, near 0 well above 1/n. No gradient flows into
        `p`.

    Raises:
        ValueError: n is below 1 or a probability lies outside [0, 1].
    """
    p = p.detach().double()
    if bool(((p < 0) | (p > 1)).any()):
        raise ValueError("a probability lies outside 0 to 1")
    return _loss_and_factor(p.log(), n)[1]


def dco_loss(sequence_logps: Tensor, n: float, reduction: str = "mean") -> Tensor:
    """Negative log-probability that one of n draws is the answer.

    ℓ = -log(1 - (1 - p)^n), p the probability of the whole answer      (arXiv 2502.07154)

    Its gradient is cross entropy's times F(n, p) (`dco_factor`), and is computed as that product, in double precision:
    neither a tiny nor a near-certain p makes it overflow. Sums are to be passed, never means per token.

    Args:
        sequence_logps: (batch,) summed label log-probabilities, in nats, at most 0.
        n: answers that may be drawn at test time, at least 1; 1 is cross entropy.
        reduction: mean, sum or none.

    Returns:
        Scalar, or (batch,) for "none"; differentiable once in `sequence_logps`.

    Raises:
        ValueError: n is below 1, a log-probability is positive, or the reduction is unknown.
    """
    losses = _losses(sequence_logps, n)[0]
    if reduction == "none":
        return losses
    if reduction not in ("mean", "sum"):
        raise ValueError(f"unknown reduction {reduction!r}: use mean, sum or none")
    return losses.mean() if reduction == "mean" else losses.sum()


def dco_step_loss(step_logps: Tensor, step_index: Tensor, n_eff: float) -> Tensor:
    """DCO of each step of an answer, for a search that tries n_eff candidates at every step.

    L = mean over rows of Σ_i -log(1 - (1 - p_i)^n_eff), p_i the probability of step i      (arXiv 2502.07154)

    Args:
        step_logps: (batch, length) log-probabilities of tokens, in nats.
        step_index: (batch, length) whole numbers: the step that a token belongs to, below 0 for none.
        n_eff: candidates a step; few suit long answers, many short ones.

    Returns:
        Scalar loss, differentiable in `step_logps`.

    Raises:
        ValueError: the shapes differ or are not (batch, length), n_eff is below 1, or a log-probability is positive.
    """
    check_same_shape(step_logps, step_index)
    if step_logps.dim() != 2:
        raise ValueError(f"steps need (batch, length) log-probabilities, not {tuple(step_logps.shape)}")
    inside = step_index >= 0
    places = step_index.clamp(min=0)
    steps = 1 + int(places.max()) if places.numel() else 1
    empty = step_logps.new_zeros(len(step_logps), steps)
    sums = empty.scatter_add(1, places, step_logps.masked_fill(~inside, 0.0))
    tokens = empty.scatter_add(1, places, inside.to(empty.dtype))
    return dco_loss(sums[tokens > 0], n_eff, "sum") / len(step_logps)


def dco_approx_loss(sequence_logps: Tensor, estimates: Tensor, n: float) -> Tensor:
    """DCO for answers that many chains of thought lead to: their probability is estimated, not computed.

    L = mean of F(n, p̃) · (-log p(chain, answer))      (arXiv 2502.07154, the approximate variant)

    Args:
        sequence_logps: (batch,) summed label log-probabilities of a chain with its answer, in nats.
        estimates: (batch,) share of chains drawn from the model that end in the answer, held fixed for an epoch.
        n: as for `dco_loss`.

    Returns:
        Scalar loss, differentiable in `sequence_logps` alone.

    Raises:
        ValueError: the shapes differ, n is below 1, or an estimate lies outside [0, 1].
    """
    check_same_shape(sequence_logps, estimates)
    return -(dco_factor(n, estimates).to(sequence_logps.dtype) * sequence_logps).mean()


@objective("dco", paper="2502.07154")
def dco(examples: Scored, n: float = 16.0, min_factor: float = 0.0) -> Tensor:
    """Direct coverage optimisation: confidence only as far as n draws need it.

    Args:
        examples: sequences to learn, each with its whole answer as labels.
        n: draws at test time, at least 1; best near the number that will be drawn. At 1 this is the mean over
            sequences of their summed negative log-likelihood, where `sft` is a mean over tokens.
        min_factor: sequences whose gradient would be scaled by less are left out and the mean is over the others, as
            if fresh ones had taken their place; 0 keeps all.

    Returns:
        Scalar loss, mean over sequences; see `dco_loss` (arXiv 2502.07154).

    Raises:
        ValueError: n is below 1 or min_factor outside [0, 1].
    """
    if not 0 <= min_factor <= 1:
        raise ValueError(f"min_factor must lie between 0 and 1, not {min_factor}")
    losses, factor = _losses(examples.logps, n)
    kept = factor >= min_factor
    return losses.masked_fill(~kept, 0.0).sum() / kept.sum().clamp(min=1)


@objective("dco-step", paper="2502.07154")
def dco_step(examples: Scored, n: float = 4.0, separator: int = -1) -> Tensor:
    """Direct coverage optimisation step by step, for a search that tries n candidates at each.

    Args:
        examples: sequences to learn.
        n: candidates a step, at least 1; 1 is cross entropy.
        separator: token id that ends a step and belongs to it, for instance a line break's; at -1 every token is a
            step of its own.

    Returns:
        Scalar loss, mean over sequences of the sum over steps; see `dco_step_loss` (arXiv 2502.07154).

    Raises:
        ValueError: n is below 1.
    """
    mask = examples.mask
    ends = torch.ones_like(mask)
    if separator >= 0:
        ends = ends.masked_scatter(mask, examples.label_ids == separator)
    ends = (ends & mask).long()
    index = (ends.cumsum(1) - ends).masked_fill(~mask, -1)
    return dco_step_loss(examples.token_logps, index, n)
