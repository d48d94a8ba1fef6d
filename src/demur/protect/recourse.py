"""Counterfactual explanations that stay true when other people have their rows deleted (ROCERF).

Krishna, Ma and Lakkaraju, "Towards Bridging the Gaps between the Right to Explanation and the Right to be Forgotten",
ICML 2023, arXiv 2302.04288. A person who was turned down learns the smallest change x0 → x after which not only the
present model says yes but, to first order, every model that lacks any k training rows:

    min ‖x − x0‖   subject to   f_A(x) = f(x) + (1/n) · (sum of the k smallest a_i(x)) ≥ δ
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from demur.errors import UsageError
from demur.protect.influence import Smooth, rows_of, smooth, worst_deletions
from demur.protect.refits import Refit
from demur.protect.solvers import cutting_planes, penalised, slsqp
from demur.protect.trees import TreeDeletion, is_tree

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from demur.data.tables import TableEncoding

    Array = NDArray[np.float64]
    Rows = NDArray[np.intp]

__all__ = ["Counterfactual", "RobustCounterfactual"]

_TOLERANCE = 1e-6
_ROUNDS = 12  # of raising δ
_NEIGHBOURS = 2  # accepted training rows that a search without convexity starts from


@dataclass(frozen=True)
class Counterfactual:
    """What would have to change, and how far that can be relied on.

    Attributes:
        x: (features,) the changed person.
        cost: Euclidean length of the change, in the units of the features as given.
        score: the present model's score of x; not negative means accepted.
        worst_score: lowest score that deleting k rows is predicted to leave.
        worst_points: the rows whose deletion does that, the most harmful first.
        valid: the worst score reaches δ and, with `delta="auto"`, the refit without the worst points accepts x.
        delta: the δ that was reached for.
        refit_score: score of x after refitting without the worst points; None unless δ was sought.
    """

    x: Array
    cost: float
    score: float
    worst_score: float
    worst_points: Rows
    valid: bool
    delta: float = 0.0
    refit_score: float | None = None


@dataclass
class RobustCounterfactual:
    """Explains decisions so that the explanations survive any k deletions.

    For linear scores the expansion is concave in x and the answer is the optimum; for networks it is the best of
    several local searches. For trees the guarantee is exact as long as deletions leave the splits alone: see
    `TreeDeletion`.

    Args:
        model: a fitted scikit-learn `LogisticRegression`, decision tree or random forest, a `LinearFit`, a torch module
            that gives one score or two logits a row, or a `Network` around one.
        X: (n, features) the model's training rows.
        y: (n,) their labels; the larger value is the favourable one.
        k: how many deletions to withstand: a number of rows, or a share of n below 1.
        delta: what the worst score must reach; "auto" raises it, for each query, until the model refitted without the
            worst rows accepts as well.
        exactly: k rows must go, even where the loss of some would help; else up to k.
        damping: added to the Hessian's diagonal, for networks and for features that depend on each other.
        actionable: (features,) which features may change, by truth value or by index; all by default.
        bounds: (low, high), each a number or (features,); no bounds by default.
        solver: "slsqp" (cutting planes for linear scores, SciPy's SLSQP for networks) or "penalty", the paper's method.
        encoding: the table that the features encode; changes then respect whole numbers and categories.

    Raises:
        UsageError: k takes all rows, the bounds cross, an option is unknown, the model has not converged or its Hessian
            is singular.
    """

    model: Any
    X: ArrayLike
    y: ArrayLike
    k: float = 0.005
    delta: float | Literal["auto"] = 0.0
    exactly: bool = False
    damping: float = 0.0
    actionable: ArrayLike | None = None
    bounds: tuple[ArrayLike, ArrayLike] | None = None
    solver: Literal["slsqp", "penalty"] = "slsqp"
    encoding: TableEncoding | None = None
    _free: NDArray[np.bool_] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.solver not in ("slsqp", "penalty"):
            raise UsageError(f"solver {self.solver!r}: give slsqp or penalty")
        if isinstance(self.delta, str) and self.delta != "auto":
            raise UsageError(f"delta {self.delta!r}: give a number or auto")
        self._X = np.asarray(self.X, float)
        n, width = self._X.shape
        self.deletions = rows_of(self.k, n)
        self._trees = TreeDeletion(self.model, self._X, self.y) if is_tree(self.model) else None
        self._smooth: Smooth | None = None if self._trees else smooth(self.model, self._X, self.y, self.damping)
        self._free = _mask(self.actionable, width)
        low, high = self.bounds if self.bounds is not None else (-np.inf, np.inf)
        self._low, self._high = (np.broadcast_to(np.asarray(b, float), (width,)) for b in (low, high))
        if (self._low > self._high).any():
            raise UsageError(f"the bounds of feature {int(np.argmax(self._low > self._high))} cross: low is above high")

    @property
    def refit(self) -> Refit:
        """Refits without given rows, as `validity` takes them."""
        return Refit(len(self._X), (self._trees or self._smooth).without)  # type: ignore[union-attr]

    @property
    def keeps_splits(self) -> bool:
        """Whether the worst score is a bound for trees whose splits stay, rather than a first-order estimate."""
        return self._trees is not None

    def scores(self, points: ArrayLike) -> Array:
        """(m,) the present model's scores of (m, features) points; not negative means accepted."""
        return (self._trees or self._smooth).scores(points)  # type: ignore[union-attr]

    def worst(self, x: ArrayLike, k: int | None = None) -> tuple[float, Rows]:
        """Lowest score that deleting k rows is predicted to leave at x, and which rows those are."""
        point, k = np.asarray(x, float), self.deletions if k is None else k
        if self._trees:
            return self._trees.worst(point, k)
        assert self._smooth is not None
        lowest, rows = worst_deletions(self._smooth.influence(point), k, self.exactly)
        return float(self._smooth.scores(point[None])[0]) + lowest / self._smooth.rows, rows

    def survives(self, x: ArrayLike) -> int:
        """The largest number of deletions, whichever rows they hit, after which x is predicted to be accepted still."""
        n = len(self._X)
        if self._trees:
            low, high = -1, n - 1
            while low < high:
                middle = (low + high + 1) // 2
                low, high = (middle, high) if self.worst(x, middle)[0] >= 0 else (low, middle - 1)
            return max(low, 0)
        assert self._smooth is not None
        point = np.asarray(x, float)
        lost = np.cumsum(np.minimum(np.sort(self._smooth.influence(point)), 0)) / n
        return int(np.sum(self._smooth.scores(point[None])[0] + lost[: n - 1] >= 0))

    def explain(self, x0: ArrayLike) -> Counterfactual:
        """The nearest change that is accepted and stays so.

        Where nothing within the bounds is, the point that comes nearest is returned with `valid=False`. Somebody who is
        accepted already is returned unchanged, with cost 0.

        Args:
            x0: (features,) the person.

        Raises:
            UsageError: x0 has another number of features or holds values that are no numbers.
        """
        person = np.asarray(x0, float)
        if person.shape != (self._X.shape[1],) or not np.isfinite(person).all():
            raise UsageError(f"the query has shape {person.shape}, not ({self._X.shape[1]},), or a value is no number")
        delta = 0.0 if self.delta == "auto" else float(self.delta)
        if self.scores(person[None])[0] >= 0:
            return self.described(person, person, delta)
        for _ in range(_ROUNDS if self.delta == "auto" else 1):
            found = self.described(person, self._search(person, delta), delta)
            if self.delta != "auto":
                return found
            after = float(self.refit(found.worst_points)(found.x[None])[0])
            found = Counterfactual(**{**vars(found), "refit_score": after, "valid": found.valid and after >= 0})
            if found.valid or found.worst_score < delta - _TOLERANCE:
                return found
            delta += 1.5 * max(-after, _TOLERANCE)
        return found

    def explain_all(
        self, queries: Iterable[ArrayLike], progress: Callable[[int], None] | None = None
    ) -> list[Counterfactual]:
        """One explanation for each query; `progress` is told how many are done."""
        found = []
        for done, query in enumerate(queries, 1):
            found.append(self.explain(query))
            if progress:
                progress(done)
        return found

    def described(self, x0: Array, x: Array, delta: float) -> Counterfactual:
        """Any change x0 → x, judged as one of these explanations."""
        lowest, rows = self.worst(x)
        score = float(self.scores(x[None])[0])
        cost = float(np.linalg.norm(x - x0))
        return Counterfactual(x, cost, score, lowest, rows, bool(min(lowest - delta, score) >= -_TOLERANCE), delta)

    def _search(self, x0: Array, delta: float) -> Array:
        if self._trees:
            return self._trees.nearest(x0, self.deletions, delta, self._free, self._low, self._high, self.encoding)
        if self.encoding is None:
            return self._continuous(x0, x0, self._free, delta)
        from demur.protect.discrete import nearest_on_grid

        return nearest_on_grid(
            lambda start, free, goal: self._continuous(x0, start, free, goal),
            lambda x: self.worst(x)[0],
            x0,
            self._free,
            delta,
            self.encoding,
            (self._low, self._high),
        )

    def _continuous(self, x0: Array, start: Array, free: NDArray[np.bool_], delta: float) -> Array:
        """The search over real numbers, with the features that are not free held at `start`."""
        assert self._smooth is not None
        low, high = np.where(free, self._low, start), np.where(free, self._high, start)
        if self.solver == "slsqp" and self._smooth.linear:
            found = cutting_planes(self._worst_and_slope, x0, delta, low, high)
            if found is not None:
                return found
        starts = self._starts(x0, low, high)
        if self.solver == "slsqp" and not self._smooth.linear:
            found = slsqp(self._worst_and_slope, x0, delta, low, high, starts)
            if found is not None:
                return found
        return penalised(self._worst_and_slope, x0, delta, low, high, starts)

    def _worst_and_slope(self, x: Array) -> tuple[float, Array]:
        assert self._smooth is not None
        lowest, rows = self.worst(x)
        return lowest, self._smooth.gradient(x) + self._smooth.influence_gradient(x, rows) / self._smooth.rows

    def _starts(self, x0: Array, low: Array, high: Array) -> list[Array]:
        """A step up the score from x0, and for other than linear scores the nearest accepted training rows."""
        assert self._smooth is not None
        slope = np.where(high > low, self._smooth.gradient(np.clip(x0, low, high)), 0.0)
        steep = slope @ slope
        gap = -float(self._smooth.scores(x0[None])[0])
        starts = [x0 + (gap * slope / steep if steep > 1e-12 else 0.0)]
        if not self._smooth.linear:
            points = np.clip(self._X, low, high)
            accepted = points[self._smooth.scores(points) >= 0]
            order = np.argsort(np.linalg.norm(accepted - x0, axis=1), kind="stable")
            starts += list(accepted[order[:_NEIGHBOURS]])
        return starts


def _mask(actionable: ArrayLike | None, width: int) -> NDArray[np.bool_]:
    if actionable is None:
        return np.ones(width, bool)
    chosen = np.asarray(actionable)
    if chosen.dtype == bool and chosen.shape == (width,):
        return chosen
    if chosen.dtype.kind not in "iu" or (chosen.size and not 0 <= chosen.min() <= chosen.max() < width):
        raise UsageError(f"actionable names features 0 to {width - 1}, or gives a truth value for each of them")
    free = np.zeros(width, bool)
    free[chosen] = True
    return free
