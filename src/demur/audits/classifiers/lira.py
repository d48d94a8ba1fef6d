"""U-LiRA: one attack for each row, from many models that unlearned it and many that never saw it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from demur.errors import UsageError

__all__ = ["gaussian_lira", "u_lira", "u_lira_tpr"]

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
    return np.asarray(1 / (1 + np.exp(np.clip(-_log_odds(value, unlearned, unseen), -700, 700))))


def _log_odds(
    value: NDArray[np.float64], unlearned: NDArray[np.float64], unseen: NDArray[np.float64]
) -> NDArray[np.float64]:
    logs = []
    for side in (unlearned, unseen):
        mean, spread = side.mean(0), np.maximum(side.std(0), _FLOOR)
        logs.append(-0.5 * ((value - mean) / spread) ** 2 - np.log(spread))
    return np.asarray(logs[0] - logs[1])


def u_lira(unlearned: NDArray[np.float64], unseen: NDArray[np.float64]) -> NDArray[np.float64]:
    """(rows,) accuracy with which each row's unlearned models are told from models that never saw it; .5 is ideal.

    The first half of the models of either side is fitted, the other half judged (Hayes et al. 2024, arXiv 2403.01218;
    Kurmanji et al. 2023, arXiv 2302.09880).

    Args:
        unlearned, unseen: (models, rows) margins log(p_y / (1 - p_y)).

    Raises:
        UsageError: the rows differ, or a side has fewer than four models.
    """
    found, missed = (odds > 0 for odds in _judged(unlearned, unseen))
    return np.asarray((found.mean(0) + 1 - missed.mean(0)) / 2)


def u_lira_tpr(unlearned: NDArray[np.float64], unseen: NDArray[np.float64], fpr: float = 0.01) -> float:
    """Share of the unlearned models' rows that the same attack finds at a given share of false alarms.

    The odds of all rows under the judged half of the models are put in one order; an attack that is right only where
    it is surest shows here and not in its mean accuracy (Carlini et al. 2022, arXiv 2112.03570).

    Args:
        unlearned, unseen: as for `u_lira`.
        fpr: share of the rows under models that never saw them that may be called unlearned.

    Raises:
        UsageError: as for `u_lira`; or there are fewer than 1 / fpr judged rows.
    """
    found, missed = _judged(unlearned, unseen)
    allowed = int(fpr * missed.size + 1e-9)
    if allowed < 1:
        raise UsageError(f"a false alarm rate of {fpr:g} needs {round(1 / fpr)} judged rows, not {missed.size}")
    threshold = np.sort(missed, axis=None)[-allowed - 1]
    return float((found > threshold).mean())


def _judged(
    unlearned: NDArray[np.float64], unseen: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Log odds of "unlearned" for the second half of either side's models, fitted on the first."""
    if unlearned.ndim != 2 or unseen.ndim != 2 or unlearned.shape[1] != unseen.shape[1]:
        raise UsageError(f"U-LiRA needs (models, rows) of the same rows, not {unlearned.shape} and {unseen.shape}")
    if min(len(unlearned), len(unseen)) < 4:
        raise UsageError(f"U-LiRA needs four models on either side, not {len(unlearned)} and {len(unseen)}")
    fitted = [side[: len(side) // 2] for side in (unlearned, unseen)]
    odds = [_log_odds(side[len(side) // 2 :], *fitted) for side in (unlearned, unseen)]
    return odds[0], odds[1]
