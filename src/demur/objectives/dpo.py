"""Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290), also as an unlearning objective."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from demur.objectives.checks import check_beta, check_same_shape
from demur.objectives.registry import objective
from demur.objectives.scored import Scored

__all__ = ["altpo", "dpo", "dpo_loss", "idkdpo"]


def dpo_loss(
    chosen_logps: Tensor,
    rejected_logps: Tensor,
    reference_chosen_logps: Tensor,
    reference_rejected_logps: Tensor,
    beta: float = 0.1,
) -> Tensor:
    """Direct preference optimisation on pairs of responses to the same prompt.

    L = -mean log σ(β [(log π - log π_ref)(chosen) - (log π - log π_ref)(rejected)])      (arXiv 2305.18290, eq. 7)

    Args:
        chosen_logps, rejected_logps: (batch,) summed label log-probabilities under the trained model, in nats.
        reference_chosen_logps, reference_rejected_logps: (batch,) the same under the frozen reference; no gradient
            flows into them.
        beta: inverse temperature, > 0.

    Returns:
        Scalar loss, differentiable in the first two.

    Raises:
        ValueError: beta is not positive or the shapes differ.
    """
    check_beta(beta)
    check_same_shape(chosen_logps, rejected_logps, reference_chosen_logps, reference_rejected_logps)
    chosen = chosen_logps - reference_chosen_logps.detach()
    rejected = rejected_logps - reference_rejected_logps.detach()
    return -F.logsigmoid(beta * (chosen - rejected)).mean()


@objective("dpo", paper="2305.18290", reference=True)
def dpo(chosen: Scored, rejected: Scored, beta: float = 0.1) -> Tensor:
    """Direct preference optimisation: prefer the chosen response to the rejected one.

    Args:
        chosen, rejected: responses to the same prompts, row by row.
        beta: inverse temperature, > 0.

    Returns:
        Scalar loss; see `dpo_loss` (arXiv 2305.18290, eq. 7).
    """
    return dpo_loss(chosen.logps, rejected.logps, chosen.reference.logps, rejected.reference.logps, beta)


@objective("idkdpo", paper="2404.05868", reference=True, retain="nll", intention="suppression", level="parameters")
def idkdpo(alternate: Scored, forget: Scored, beta: float = 0.1) -> Tensor:
    """DPO towards "I don't know": the abstention is chosen, the answer to forget is rejected.

    L = (2/β) · L_DPO(alternate, forget): the scale that makes it comparable with NPO (arXiv 2404.05868, section 4).

    Args:
        alternate: the forget prompts answered by an abstention.
        forget: sequences to forget.
        beta: inverse temperature, > 0.

    Returns:
        Scalar loss in nats.
    """
    return dpo(alternate, forget, beta) * (2.0 / beta)


@objective(
    "altpo",
    paper="2409.13474",
    reference=True,
    retain="nll",
    intention="suppression",
    level="parameters",
    generated=True,
)
def altpo(alternate: Scored, forget: Scored, beta: float = 0.1) -> Tensor:
    """AltPO: DPO towards plausible other answers of the model's own making, away from the answer to forget.

    L = (2/β) · L_DPO(alternate, forget), as `idkdpo` has it; what differs is the answer that is chosen
    (Mekala et al. 2024, arXiv 2409.13474).

    Args:
        alternate: the forget prompts with another answer, one of several that the model made up for the row.
        forget: sequences to forget.
        beta: inverse temperature, > 0.

    Returns:
        Scalar loss in nats.
    """
    return idkdpo(alternate, forget, beta)
