"""What a model can still do after unlearning: the harmonic mean of nine scores (TOFU, arXiv 2401.06121, section 2.2.1).

Retain set, real authors and world facts each give a probability (normalised over the options for the latter two),
a ROUGE-L recall and a truth ratio. The harmonic mean is 0 as soon as one of the nine is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from demur.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["UTILITY_PARTS", "harmonic_mean", "utility_from_parts"]

UTILITY_PARTS = tuple(
    f"{part}_{score}"
    for part in ("retain", "real_authors", "world_facts")
    for score in ("probability", "rouge", "truth_ratio")
)
"""The metrics that model utility is made of."""


def harmonic_mean(values: ArrayLike) -> NDArray[np.float64]:
    """Harmonic mean over the last axis; 0 where any value is 0.

    Args:
        values: (..., k) numbers ≥ 0.

    Raises:
        UsageError: a value is negative, or there is none.
    """
    values = np.asarray(values, dtype=np.float64)
    if not values.shape[-1] or (values < 0).any():
        raise UsageError("a harmonic mean needs at least one value and none below 0")
    with np.errstate(divide="ignore", over="ignore"):
        return values.shape[-1] / (1.0 / values).sum(axis=-1)


def utility_from_parts(parts: dict[str, float]) -> float:
    """Model utility from its nine parts.

    Args:
        parts: the value of every name in `UTILITY_PARTS`.

    Raises:
        UsageError: a part is missing.
    """
    missing = [name for name in UTILITY_PARTS if name not in parts]
    if missing:
        raise UsageError(f"model utility is made of nine parts; missing: {', '.join(missing)}")
    return float(harmonic_mean([parts[name] for name in UTILITY_PARTS]))
