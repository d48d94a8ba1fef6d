"""DPO with fine-tuning on the chosen response (Gao et al. 2024, arXiv 2406.00380, trained with `pref_ftx`)."""

from __future__ import annotations

from torch import Tensor

from demur.objectives.checks import check_not_negative, check_same_shape
from demur.objectives.dpo import dpo_loss
from demur.objectives.registry import objective
from demur.objectives.scored import Scored

__all__ = ["dpo_sft", "dpo_sft_loss"]


def dpo_sft_loss(
    chosen_logps: Tensor,
    rejected_logps: Tensor,
    reference_chosen_logps: Tensor,
    reference_rejected_logps: Tensor,
    chosen_lengths: Tensor,
    beta: float = 0.1,
    sft_weight: float = 1.0,
) -> Tensor:
    """DPO and the chosen response's negative log-likelihood per token, each sequence counting alike.

    L = L_DPO - sft_weight · mean [log π(chosen) / n]      (arXiv 2406.00380, section 4.2 and its training code)

    Summed over tokens instead, the second term would be n times larger and leave DPO without effect.

    Args:
        chosen_logps, rejected_logps: (batch,) summed label log-probabilities under the trained model, in nats.
        reference_chosen_logps, reference_rejected_logps: (batch,) the same under the frozen reference; no gradient
            flows into them.
        chosen_lengths: (batch,) number of labels of each chosen response.
        beta: inverse temperature, > 0.
        sft_weight: λ, at least 0; with 0 the loss is DPO's.

    Returns:
        Scalar loss, differentiable in the first two.

    Raises:
        ValueError: beta is not positive, sft_weight is negative or the shapes differ.
    """
    check_not_negative(sft_weight=sft_weight)
    check_same_shape(chosen_logps, chosen_lengths)
    loss = dpo_loss(chosen_logps, rejected_logps, reference_chosen_logps, reference_rejected_logps, beta)
    return loss - sft_weight * (chosen_logps / chosen_lengths).mean() if sft_weight else loss


@objective("dpo-sft", paper="2406.00380", reference=True)
def dpo_sft(chosen: Scored, rejected: Scored, beta: float = 0.1, sft_weight: float = 1.0) -> Tensor:
    """DPO, and fine-tuning on the chosen response, which keeps its probability from falling.

    Args:
        chosen, rejected: responses to the same prompts, row by row.
        beta: inverse temperature, > 0.
        sft_weight: λ of the chosen response's negative log-likelihood per token, at least 0.

    Returns:
        Scalar loss; see `dpo_sft_loss` (arXiv 2406.00380).
    """
    return dpo_sft_loss(
        chosen.logps,
        rejected.logps,
        chosen.reference.logps,
        rejected.reference.logps,
        chosen.lengths,
        beta,
        sft_weight,
    )
