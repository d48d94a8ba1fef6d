"""The nearest point that a worst-case score accepts: cutting planes where it is concave, else SLSQP or a penalty."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    # The worst-case score at a point, and its derivative there.
    Worst = Callable[[Array], tuple[float, Array]]

__all__ = ["cutting_planes", "penalised", "slsqp"]

_FEASIBLE = 1e-6
_CUTS = 300
_GROWTH = [10.0**power for power in range(7)]  # λ of the penalty: 1 to 1e6


def cutting_planes(worst: Worst, x0: Array, delta: float, low: Array, high: Array) -> Array | None:
    """The nearest point with worst(x) ≥ delta for a concave, piecewise linear score; None where there is none.

    Each round adds the half-space of the piece that is worst at the point reached and projects x0 onto all of them, so
    it ends at the optimum after finitely many pieces.

    Args:
        worst: the score and its derivative.
        x0: (features,) where to stay near.
        delta: what the score must reach.
        low, high: (features,) bounds; equal ones hold a feature fixed.
    """
    x, normals, offsets = np.clip(x0, low, high), [], []
    for _ in range(_CUTS):
        value, slope = worst(x)
        if value >= delta - 1e-9:
            return x
        normals.append(slope)
        offsets.append(value - slope @ x - delta)
        found = _project(x0, np.array(normals), np.array(offsets), low, high)
        if found is None:
            return None
        x = found
    return None


def _project(x0: Array, normals: Array, offsets: Array, low: Array, high: Array) -> Array | None:
    """The nearest point of {normals · x + offsets ≥ 0, low ≤ x ≤ high}, as a least-distance problem solved by NNLS.

    Lawson & Hanson 1974, chapter 23: minimise ‖u‖ subject to G u ≥ h.
    """
    from scipy.optimize import nnls

    free = high > low
    base = np.where(free, x0, np.clip(x0, low, high))
    walls = np.eye(int(free.sum()))
    G = np.vstack([normals[:, free], walls[np.isfinite(low[free])], -walls[np.isfinite(high[free])]])
    h = np.concatenate(
        [
            -(normals @ base + offsets),
            (low - base)[free][np.isfinite(low[free])],
            (base - high)[free][np.isfinite(high[free])],
        ]
    )
    norms = np.linalg.norm(G, axis=1)
    if (h[norms <= 1e-14] > 1e-12).any():
        return None
    G, h = G[norms > 1e-14] / norms[norms > 1e-14, None], h[norms > 1e-14] / norms[norms > 1e-14]
    h = h + 1e-11  # so that rounding ends on the accepted side
    system, goal = np.vstack([G.T, h]), np.append(np.zeros(G.shape[1]), 1.0)
    try:
        multipliers, rest = nnls(system, goal, maxiter=50 * G.shape[0] + 100)
    except RuntimeError:
        return None
    if rest < 1e-9:
        return None
    residual = system @ multipliers - goal
    x = base.copy()
    x[free] += -residual[:-1] / residual[-1]
    return np.clip(x, low, high)


def slsqp(worst: Worst, x0: Array, delta: float, low: Array, high: Array, starts: list[Array]) -> Array | None:
    """The nearest of the local optima that SciPy's SLSQP finds from several starts; None where none is accepted."""
    from scipy.optimize import Bounds, minimize

    worst = _remembering(worst)
    best: Array | None = None
    for start in starts:
        found = minimize(
            lambda x: (((x - x0) ** 2).sum() / 2, x - x0),
            np.clip(start, low, high),
            jac=True,
            method="SLSQP",
            bounds=Bounds(low, high),
            constraints={"type": "ineq", "fun": lambda x: worst(x)[0] - delta, "jac": lambda x: worst(x)[1]},
            options={"maxiter": 60, "ftol": 1e-9},
        )
        near = np.clip(x0, low, high)
        x = _nearer(worst, near, np.clip(found.x, low, high), np.clip(start, low, high), delta)
        if x is not None and (best is None or _distance(x, x0) < _distance(best, x0)):
            best = x
    return best


def penalised(worst: Worst, x0: Array, delta: float, low: Array, high: Array, starts: list[Array]) -> Array:
    """Minimise λ max(0, δ − worst(x))² + ‖x − x0‖ for λ = 1, 10 … 1e6, from each start; the best that was found.

    Where nothing is accepted it returns the point that comes nearest to being so.
    """
    from scipy.optimize import Bounds, minimize

    worst = _remembering(worst)

    def loss(x: Array, weight: float) -> tuple[float, Array]:
        value, slope = worst(x)
        gap, distance = max(0.0, delta - value), _distance(x, x0)
        return weight * gap**2 + distance, -2 * weight * gap * slope + (x - x0) / max(distance, 1e-9)

    reached = []
    for start in starts:
        x = np.clip(start, low, high)
        for weight in _GROWTH:
            found = minimize(
                loss, x, (weight,), jac=True, method="L-BFGS-B", bounds=Bounds(low, high), options={"maxiter": 100}
            )
            x = np.clip(found.x, low, high)
            if worst(x)[0] >= delta - _FEASIBLE and weight > 1:
                break
        reached.append(_lifted(worst, x, delta, low, high))
    accepted = [x for x in reached if worst(x)[0] >= delta - _FEASIBLE]
    if accepted:
        return min(accepted, key=lambda x: _distance(x, x0))
    return max(reached, key=lambda x: worst(x)[0])


def _remembering(worst: Worst) -> Worst:
    """The same function, which knows the last point's answer: solvers ask for value and slope one after the other."""
    last: list[tuple[bytes, tuple[float, Array]]] = []

    def remembered(x: Array) -> tuple[float, Array]:
        if not last or last[0][0] != x.tobytes():
            last[:] = [(x.tobytes(), worst(x))]
        return last[0][1]

    return remembered


def _lifted(worst: Worst, x: Array, delta: float, low: Array, high: Array) -> Array:
    """The last hair's breadth that a finite penalty leaves, by Newton steps along the slope."""
    for _ in range(20):
        value, slope = worst(x)
        slope = np.where((high > low), slope, 0.0)
        if value >= delta or not slope.any():
            return x
        x = np.clip(x + (delta - value + 1e-9) * slope / (slope @ slope), low, high)
    return x


def _nearer(worst: Worst, near: Array, x: Array, start: Array, delta: float) -> Array | None:
    """Where the way from what is not accepted to what is crosses over: x0 to x, or x to the start if only that is."""
    accepted = worst(x)[0] >= delta
    if not accepted and worst(start)[0] < delta:
        return None
    outside, inside = (near, x) if accepted else (x, start)
    return inside if worst(outside)[0] >= delta else _crossing(worst, outside, inside, delta)


def _crossing(worst: Worst, outside: Array, inside: Array, delta: float) -> Array:
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        if worst(outside + middle * (inside - outside))[0] >= delta:
            high = middle
        else:
            low = middle
    return outside + high * (inside - outside)


def _distance(x: Array, x0: Array) -> float:
    return float(np.linalg.norm(x - x0))
