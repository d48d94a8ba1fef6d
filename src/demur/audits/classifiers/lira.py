"""U-LiRA: one attack for each row, from many models that unlearned it and many that never saw it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from demur.errors import UsageError

__all__ = ["gaussian_lira", "u_lira"]

_FLOOR = 1e-6


def gaussian_lira(
    value: NDArray[np.float64], unlearned: NDArray[np.float64], unseen: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Probability that each value comes from the unlearned models, by a normal fit to either side, with even odds.

    Args:
        value: (models, rows) margins to judge.
        unlearned: (models, rows) margins under models that unlearned the rows.
        unseen: (models, rows) margins under models that never saw them.

    Returns:
        (models, rows) probabilities.
    """
    logs = []
    for side in (unlearned, unseen):
        mean, spread = side.mean(0), np.maximum(side.std(0), _FLOOR)
        logs.append(-0.5 * ((value - mean) / spread) ** 2 - np.log(spread))
    return np.asarray(1 / (1 + np.exp(np.clip(logs[1] - logs[0], -700, 700))))


def u_lira(unlearned: NDArray[np.float64], unseen: NDArray[np.float64]) -> NDArray[np.float64]:
    """(rows,) accuracy with which each row's unlearned models are told from models that never saw it; .5 is ideal.

    The first half of the models of either side is fitted, the other half judged (Hayes et al. 2024, arXiv 2403.01218;
    Kurmanji et al. 2023, arXiv 2302.09880).

    Args:
        unlearned, unseen: (models, rows) margins log(p_y / (1 - p_y)).

    Raises:
        UsageError: the rows differ, or a side has fewer than four models.
    """
    if unlearned.ndim != 2 or unseen.ndim != 2 or unlearned.shape[1] != unseen.shape[1]:
        raise UsageError(f"U-LiRA needs (models, rows) of the same rows, not {unlearned.shape} and {unseen.shape}")
    if min(len(unlearned), len(unseen)) < 4:
        raise UsageError(f"U-LiRA needs four models on either side, not {len(unlearned)} and {len(unseen)}")
    fitted = [side[: len(side) // 2] for side in (unlearned, unseen)]
    found = gaussian_lira(unlearned[len(unlearned) // 2 :], *fitted) > 0.5
    missed = gaussian_lira(unseen[len(unseen) // 2 :], *fitted) > 0.5
    return np.asarray((found.mean(0) + 1 - missed.mean(0)) / 2)
