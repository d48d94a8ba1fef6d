"""Which points no other point beats."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["dominators"]


def dominators(losses: Sequence[Sequence[float]]) -> list[list[int]]:
    """For each point the points that dominate it: as good in every measure and better in one.

    Exact: every pair is compared. The Pareto front are the points that nothing dominates; points with the same
    numbers do not dominate each other.

    Args:
        losses: (points, measures), lower is better; finite.

    Returns:
        The indices of the dominating points, ascending; empty for a point of the front.

    Raises:
        ValueError: points have different numbers of measures, or one is not finite.
    """
    points = np.asarray(losses, dtype=float)
    if not len(points):
        return []
    if points.ndim != 2 or not np.isfinite(points).all():
        raise ValueError("points must have the same finite measures")
    found = []
    for point in points:
        beats = (points <= point).all(axis=1) & (points < point).any(axis=1)
        found.append(np.flatnonzero(beats).tolist())
    return found
