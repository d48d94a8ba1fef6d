"""Losses on pairs of responses to one prompt: what to prefer, and how hard.

Every loss is a function of the summed (or per-token) log-probabilities of the chosen and of the rejected response, some
also of a reference's. DPO itself is in `dpo.py`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from demur.objectives.checks import check_beta, check_same_shape
from demur.objectives.registry import objective
from demur.objectives.scored import Scored

__all__ = ["cpo", "dpop", "ipo", "log_odds", "orpo", "rdpo", "redi", "redi_loss", "simpo", "slic"]


def _check_at_least_zero(**options: float) -> None:
    for name, value in options.items():
        if not value >= 0:
            raise ValueError(f"{name} must be at least 0, not {value}")


def _ratios(chosen: Scored, rejected: Scored) -> tuple[Tensor, Tensor]:
    """(batch,) log π − log π_ref of each chosen and each rejected response."""
    check_same_shape(chosen.logps, rejected.logps)
    return (
        chosen.logps - chosen.reference.logps.detach(),
        rejected.logps - rejected.reference.logps.detach(),
    )


@objective("ipo", paper="2310.12036", reference=True)
def ipo(chosen: Scored, rejected: Scored, beta: float = 0.1, per_token: bool = True) -> Tensor:
    """Identity preference optimisation: bring the margin to a fixed value instead of raising it for ever.

    L = mean (Δ - 1/(2β))², Δ = (log π - log π_ref)(chosen) - (log π - log π_ref)(rejected) (arXiv 2310.12036, eq. 17)

    Args:
        chosen, rejected: responses to the same prompts, row by row.
        beta: the equation's τ, > 0.
        per_token: divide each response's log-ratio by its number of tokens, as TRL does on its authors' word; the
            equation itself has sums.

    Returns:
        Scalar loss.

    Raises:
        ValueError: beta is not positive.
    """
    check_beta(beta)
    won, lost = _ratios(chosen, rejected)
    if per_token:
        won, lost = won / chosen.lengths, lost / rejected.lengths
    return (won - lost - 0.5 / beta).square().mean()


@objective("slic", paper="2305.10425")
def slic(chosen: Scored, rejected: Scored, margin: float = 1.0, nll_weight: float = 0.0) -> Tensor:
    """SLiC-HF: a hinge on the difference of log-probabilities, no reference.

    L = mean max(0, margin - log π(chosen) + log π(rejected)) + nll_weight · NLL(chosen) (arXiv 2305.10425, eq. 1, with
    the chosen response as the one to stay near)

    Args:
        chosen, rejected: responses to the same prompts, row by row.
        margin: δ, in nats; the loss is 0 past it.
        nll_weight: λ, at least 0.

    Returns:
        Scalar loss in nats.

    Raises:
        ValueError: nll_weight is negative.
    """
    _check_at_least_zero(nll_weight=nll_weight)
    check_same_shape(chosen.logps, rejected.logps)
    return _with_nll((margin - chosen.logps + rejected.logps).clamp(min=0).mean(), chosen, nll_weight)


@objective("cpo", paper="2401.08417")
def cpo(chosen: Scored, rejected: Scored, beta: float = 0.1, nll_weight: float = 1.0) -> Tensor:
    """Contrastive preference optimisation: DPO with a uniform reference, and the chosen response's likelihood.

    L = -mean log σ(β (log π(chosen) - log π(rejected))) + nll_weight · NLL(chosen) (arXiv 2401.08417, eq. 3 and 5)

    Args:
        chosen, rejected: responses to the same prompts, row by row.
        beta: inverse temperature, > 0.
        nll_weight: at least 0.

    Returns:
        Scalar loss.

    Raises:
        ValueError: beta is not positive or nll_weight is negative.
    """
    check_beta(beta)
    _check_at_least_zero(nll_weight=nll_weight)
    check_same_shape(chosen.logps, rejected.logps)
    return _with_nll(-F.logsigmoid(beta * (chosen.logps - rejected.logps)).mean(), chosen, nll_weight)


def _with_nll(loss: Tensor, chosen: Scored, weight: float) -> Tensor:
    return loss + weight * chosen.nll if weight else loss


@objective("simpo", paper="2405.14734")
def simpo(chosen: Scored, rejected: Scored, beta: float = 2.0, gamma: float = 1.0) -> Tensor:
    """SimPO: log-probabilities per token, a target margin, no reference.

    L = -mean log σ(β (log π(chosen)/n - log π(rejected)/m) - γ) (arXiv 2405.14734, eq. 6)

    Args:
        chosen, rejected: responses to the same prompts, row by row.
        beta: inverse temperature, > 0.
        gamma: margin of the rewards, on the scale of β times nats.

    Returns:
        Scalar loss.

    Raises:
        ValueError: beta is not positive.
    """
    check_beta(beta)
    check_same_shape(chosen.mean_logps, rejected.mean_logps)
    return -F.logsigmoid(beta * (chosen.mean_logps - rejected.mean_logps) - gamma).mean()


def log_odds(logps: Tensor) -> Tensor:
    """log p / (1 - p) from log p, without forming p.

    Args:
        logps: log-probabilities, at most 0; those above -1e-6 count as -1e-6, where the odds are still finite.

    Returns:
        A tensor of the same shape.
    """
    logps = logps.clamp(max=-1e-6)
    return logps - torch.log(-torch.expm1(logps))


@objective("orpo", paper="2403.07691")
def orpo(chosen: Scored, rejected: Scored, weight: float = 0.1) -> Tensor:
    """Odds-ratio preference optimisation: fine-tuning on the chosen response and a push on the ratio of the odds.

    L = NLL(chosen) - weight · mean log σ(log odds(chosen) - log odds(rejected)), odds of the per-token geometric mean
    probability (arXiv 2403.07691, eq. 6 and 7)

    Args:
        chosen, rejected: responses to the same prompts, row by row.
        weight: λ, at least 0.

    Returns:
        Scalar loss in nats.

    Raises:
        ValueError: weight is negative.
    """
    _check_at_least_zero(weight=weight)
    check_same_shape(chosen.mean_logps, rejected.mean_logps)
    ratio = log_odds(chosen.mean_logps) - log_odds(rejected.mean_logps)
    return chosen.nll - weight * F.logsigmoid(ratio).mean()


@objective("rdpo", paper="2403.19159", reference=True)
def rdpo(chosen: Scored, rejected: Scored, beta: float = 0.1, alpha: float = 0.01) -> Tensor:
    """R-DPO: DPO for a reward that charges for length.

    L = -mean log σ(β Δ + α (n - m)), Δ as in `ipo`, n and m the lengths of the chosen and the rejected response: where
    the chosen one is longer, less is asked of it (arXiv 2403.19159, eq. 9)

    Args:
        chosen, rejected: responses to the same prompts, row by row.
        beta: inverse temperature, > 0.
        alpha: price of a token, at least 0.

    Returns:
        Scalar loss.

    Raises:
        ValueError: beta is not positive or alpha is negative.
    """
    check_beta(beta)
    _check_at_least_zero(alpha=alpha)
    won, lost = _ratios(chosen, rejected)
    return -F.logsigmoid(beta * (won - lost) + alpha * (chosen.lengths - rejected.lengths)).mean()


@objective("dpop", paper="2402.13228", reference=True)
def dpop(chosen: Scored, rejected: Scored, beta: float = 0.3, penalty: float = 50.0) -> Tensor:
    """DPO-Positive: DPO that charges for letting the chosen response fall below the reference.

    L = -mean log σ(β [Δ - penalty · max(0, log π_ref(chosen) - log π(chosen))]) (arXiv 2402.13228, eq. 3)

    Args:
        chosen, rejected: responses to the same prompts, row by row.
        beta: inverse temperature, > 0.
        penalty: λ, at least 0; with 0 the loss is DPO's.

    Returns:
        Scalar loss.

    Raises:
        ValueError: beta is not positive or penalty is negative.
    """
    check_beta(beta)
    _check_at_least_zero(penalty=penalty)
    won, lost = _ratios(chosen, rejected)
    return -F.logsigmoid(beta * (won - lost - penalty * (-won).clamp(min=0))).mean()


def redi_loss(chosen_mean_logps: Tensor, rejected_mean_logps: Tensor, alpha: float = 0.8) -> Tensor:
    """Reinforcement distillation: raise right traces, lower wrong ones a little less.

    L = mean [-log π(chosen)/n + α log π(rejected)/m]      (arXiv 2505.24850, eq. 5)

    Unbounded below: with α = 1 both log-probabilities can fall for ever.

    Args:
        chosen_mean_logps, rejected_mean_logps: (batch,) log-probabilities per label token, in nats.
        alpha: weight of the rejected side, in [0, 1].

    Returns:
        Scalar loss in nats.

    Raises:
        ValueError: alpha is outside [0, 1] or the shapes differ.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be between 0 and 1, not {alpha}")
    check_same_shape(chosen_mean_logps, rejected_mean_logps)
    return (alpha * rejected_mean_logps - chosen_mean_logps).mean()


@objective("redi", paper="2505.24850")
def redi(chosen: Scored, rejected: Scored, alpha: float = 0.8) -> Tensor:
    """Reinforcement distillation: raise right traces, lower wrong ones a little less.

    Args:
        chosen, rejected: a right and a wrong trace for the same problem, row by row.
        alpha: weight of the rejected side, in [0, 1].

    Returns:
        Scalar loss in nats; see `redi_loss` (arXiv 2505.24850, eq. 5).
    """
    return redi_loss(chosen.mean_logps, rejected.mean_logps, alpha)
