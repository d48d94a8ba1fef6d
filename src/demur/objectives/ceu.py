"""CE-U: cross-entropy unlearning (Yang 2025, arXiv 2503.01224)."""

from __future__ import annotations

import math

from torch import Tensor

from demur.objectives.checks import check_not_negative
from demur.objectives.registry import objective
from demur.objectives.scored import Scored

__all__ = ["ceu"]


@objective("ceu", paper="2503.01224", intention="removal", level="logits")
def ceu(forget: Scored, skip: int = 1) -> Tensor:
    """CE-U: learn the model's own distribution without the answer token, and leave out each answer's beginning.

    L = mean over tokens of CE(q, p), q being p without the answer token, taken as a constant      (arXiv 2503.01224)

    Its gradient with respect to the logits is p - q, whose entry at the answer token is p's own: it fades as the
    token is forgotten.

    Args:
        forget: sequences to forget.
        skip: answer tokens at the beginning that do not count; an answer with no more than these teaches nothing.

    Returns:
        Scalar loss in nats.

    Raises:
        ValueError: skip is negative.
    """
    check_not_negative(skip=skip)
    kept = forget.mask & (forget.mask.cumsum(1) > skip)
    # What is left of the accumulated batch: it loses its share of tokens, as many as this batch loses.
    total = forget.token_total - (forget.mask & ~kept).sum()
    values = forget.adjusted_cross_entropy(math.inf).masked_fill(~kept, 0.0)
    return values.sum() / total.clamp(min=1)
