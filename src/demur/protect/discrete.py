"""The nearest point that a person could really have: categories are chosen, numbers rounded, and all is rechecked."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from demur.data.tables import TableEncoding

    Array = NDArray[np.float64]
    Mask = NDArray[np.bool_]

__all__ = ["nearest_on_grid"]

_CATEGORIES = 2  # that may change at once
_PUSHES = 6


def nearest_on_grid(
    solve: Callable[[Array, Mask, float], Array],
    worst: Callable[[Array], float],
    x0: Array,
    free: Mask,
    delta: float,
    encoding: TableEncoding,
    bounds: tuple[Array, Array],
) -> Array:
    """The nearest accepted point among whole numbers and categories that were tried.

    Every choice of categories that differs from x0 in at most two columns is a search of its own over the numbers, in
    the order of what the categories alone cost, until that is more than the best answer.

    Args:
        solve: takes a point, which features may move from it, and δ; gives the nearest point to x0 that reaches it.
        worst: the worst-case score of a point.
        x0: (features,) the person.
        free: (features,) which features may change.
        delta: what the worst score must reach.
        encoding: the table's columns.
        bounds: lowest and highest values, each (features,).

    Returns:
        The best point; where none reaches δ, the one with the highest worst score of those tried.
    """
    numbers = free.copy()
    for column in encoding.columns:
        if column.values:
            numbers[column.features] = False
    best, cost, fallback, height = None, np.inf, x0, -np.inf
    for start in encoding.choices(x0, free, _CATEGORIES):
        if np.linalg.norm(start - x0) >= cost:
            break
        if ((start < bounds[0]) | (start > bounds[1])).any() and (start != x0).any():
            continue
        point, reached = _rounded(solve, worst, x0, start, numbers, delta, encoding, bounds)
        if reached >= delta and np.linalg.norm(point - x0) < cost:
            best, cost = point, float(np.linalg.norm(point - x0))
        elif reached > height:
            fallback, height = point, reached
    return fallback if best is None else _pulled_back(worst, best, x0, numbers, delta, encoding)


def _rounded(
    solve: Callable[[Array, Mask, float], Array],
    worst: Callable[[Array], float],
    x0: Array,
    start: Array,
    numbers: Mask,
    delta: float,
    encoding: TableEncoding,
    bounds: tuple[Array, Array],
) -> tuple[Array, float]:
    """A search over the numbers, rounded; where rounding lost what was needed, again with a higher goal."""
    goal = delta
    for _ in range(_PUSHES):
        exact = solve(start, numbers, goal)
        point = np.where(numbers, np.clip(encoding.snapped(exact, x0, numbers), *bounds), start)
        reached = worst(point)
        if reached >= delta or worst(exact) < goal - 1e-6:
            break
        goal += 1.5 * (delta - reached)
    return point, reached


def _pulled_back(
    worst: Callable[[Array], float], point: Array, x0: Array, numbers: Mask, delta: float, encoding: TableEncoding
) -> Array:
    """Whole numbers taken back towards x0, one at a time, as long as the point stays accepted."""
    whole = [column for column in encoding.columns if column.whole and numbers[column.first]]
    moved = True
    while moved:
        moved = False
        for column in whole:
            gap = x0[column.first] - point[column.first]
            if abs(gap) < 0.5 / column.span:
                continue
            tried = point.copy()
            tried[column.first] += np.sign(gap) * min(1 / column.span, abs(gap))
            if worst(tried) >= delta:
                point, moved = tried, True
    return point
