"""Inverted hinge loss: the runner-up takes the true token's place (LoKU; Cha et al. 2024, arXiv 2408.06621)."""

from __future__ import annotations

from torch import Tensor

from demur.objectives.registry import objective
from demur.objectives.scored import Scored

__all__ = ["ihl", "inverted_hinge"]


def inverted_hinge(margins: Tensor) -> Tensor:
    """Inverted hinge of each label.

    L_t = 1 + p(t) - max over v ≠ t of p(v)      (arXiv 2408.06621; its max(0, ·) never acts on probabilities)

    Args:
        margins: p(t) - max over v ≠ t of p(v), in [-1, 1], any shape; see `Scored.margins`.

    Returns:
        The same shape, in [0, 2]; 1 is a tie.
    """
    return 1 + margins


@objective("ihl", paper="2408.06621", retain="nll", intention="removal", level="parameters")
def ihl(forget: Scored) -> Tensor:
    """Inverted hinge loss: lower the true token and raise the runner-up, and leave the rest of the vocabulary alone.

    Args:
        forget: sequences to forget.

    Returns:
        Scalar loss in [0, 2], mean over label tokens; see `inverted_hinge` (arXiv 2408.06621).
    """
    return forget.token_mean(inverted_hinge(forget.margins))
