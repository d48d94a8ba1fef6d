"""UNDIAL: self-distillation with adjusted logits (Dong et al. 2024, arXiv 2402.10052)."""

from __future__ import annotations

from torch import Tensor

from demur.objectives.checks import check_not_negative
from demur.objectives.registry import objective
from demur.objectives.scored import Scored

__all__ = ["undial"]


@objective("undial", paper="2402.10052", reference="distribution", intention="removal", level="logits")
def undial(forget: Scored, beta: float = 10.0) -> Tensor:
    """UNDIAL: learn what the reference would say if it held each answer token for less likely.

    L = mean over tokens of CE(softmax(z_ref - β · onehot(y)), p)      (arXiv 2402.10052)

    The mean is over answer tokens. At β = 0 it is self-distillation, with no gradient where the model is the reference.

    Args:
        forget: sequences to forget.
        beta: what each answer token's logit is lowered by, at least 0.

    Returns:
        Scalar loss in nats.

    Raises:
        ValueError: beta is negative.
    """
    check_not_negative(beta=beta)
    return forget.token_mean(forget.adjusted_cross_entropy(beta, forget.reference))
