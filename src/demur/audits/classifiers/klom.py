"""KLoM: how far the distribution of a row's margin over unlearned models is from that over models that never saw it."""

from __future__ import annotations

import warnings
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from demur.errors import UsageError

__all__ = ["kl_of_margins"]

_LEAST = 20
_FLOOR = 1e-5

Direction = Literal["oracle||unlearned", "unlearned||oracle", "symmetric"]


def kl_of_margins(
    oracle: NDArray[np.float64],
    unlearned: NDArray[np.float64],
    *,
    bins: int = 20,
    clip: float = 100.0,
    direction: Direction = "oracle||unlearned",
    compat: bool = False,
) -> NDArray[np.float64]:
    """KL divergence of margins, row by row (Georgiev et al. 2024, arXiv 2410.23232).

    Equal bins from the smallest to the largest margin of both sides; what the second side never shows counts as 1e-5.
    Two sets of oracles are not 0 apart: print that floor beside every value, with as many models and bins.

    Args:
        oracle: (models, rows) margins of models that never saw the forget rows.
        unlearned: (models, rows) margins of unlearned models.
        bins: of the histograms.
        clip: margins beyond ± this count as this.
        direction: which side the divergence is taken from.
        compat: leave out the largest margin of both sides, as the released code does.

    Returns:
        (rows,) divergences in nats.

    Raises:
        UsageError: the sides do not have the same rows, or the direction is unknown.
    """
    if oracle.ndim != 2 or unlearned.ndim != 2 or oracle.shape[1] != unlearned.shape[1]:
        raise UsageError(f"KLoM needs (models, rows) of the same rows, not {oracle.shape} and {unlearned.shape}")
    if direction not in ("oracle||unlearned", "unlearned||oracle", "symmetric"):
        raise UsageError(f"unknown direction {direction!r}: use oracle||unlearned, unlearned||oracle or symmetric")
    if min(len(oracle), len(unlearned)) < _LEAST:
        warnings.warn(f"{min(len(oracle), len(unlearned))} models are few for {bins} bins", stacklevel=2)
    sides = [np.clip(side, -clip, clip) for side in (oracle, unlearned)]
    low = np.minimum(*(side.min(0) for side in sides))
    high = np.maximum(*(side.max(0) for side in sides))
    width = np.where(high > low, high - low, 1.0) / bins
    p, q = (_histogram(side, low, high, width, bins, compat) for side in sides)
    if direction == "symmetric":
        return (_divergence(p, q) + _divergence(q, p)) / 2
    return _divergence(p, q) if direction == "oracle||unlearned" else _divergence(q, p)


def _histogram(
    side: NDArray[np.float64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    width: NDArray[np.float64],
    bins: int,
    compat: bool,
) -> NDArray[np.float64]:
    """(bins, rows) shares of the models."""
    place = np.clip(np.floor((side - low) / width).astype(int), 0, bins - 1)
    counted = np.where((side < high) | (high <= low), 1.0, 0.0) if compat else np.ones_like(side)
    out = np.zeros((bins, side.shape[1]))
    np.add.at(out, (place, np.arange(side.shape[1])[None]), counted)
    return out / np.maximum(out.sum(0), 1)


def _divergence(p: NDArray[np.float64], q: NDArray[np.float64]) -> NDArray[np.float64]:
    """KL(p‖q) down the columns; q is made to cover p, and to sum to 1."""
    from scipy.special import rel_entr

    covered = np.where((p > 0) & (q < _FLOOR), _FLOOR, q)
    return np.asarray(rel_entr(p, covered / covered.sum(0)).sum(0))
