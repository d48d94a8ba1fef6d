"""Decision trees and small forests: leaf votes are counted, so the worst that k deletions can do needs no derivative.

With its splits held fixed a tree's answer for x depends on the counts of one leaf. Taking out k rows can at worst take
k favourable ones out of it (as often as a bootstrap drew them), which gives each tree's worst share exactly, and the
mean of the trees' worst shares is a lower bound for the forest: no k deletions can take it lower while the splits stay.
For one tree the bound is attained. A refit may choose other splits, and about those nothing is guaranteed: `validity`
measures it.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from demur.errors import DemurError, UsageError
from demur.protect.linear import signs

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from demur.data.tables import TableEncoding

    Array = NDArray[np.float64]
    Rows = NDArray[np.intp]

__all__ = ["TreeDeletion", "is_tree"]

_KINDS = ("DecisionTreeClassifier", "RandomForestClassifier", "ExtraTreesClassifier")
_VISITS = 200_000  # intersections of leaves looked at for one query
_TIE = 1e-9  # a tie is no acceptance: scikit-learn gives it to the first class


@dataclass(frozen=True)
class _Tree:
    """One tree: node number of each leaf, the half-open boxes (low, high] they are, and who lies in them."""

    apply: Callable[[NDArray[np.float32]], Rows]
    leaves: Rows
    low: Array
    high: Array
    where: Rows  # (n,) the leaf of each training row
    times: Rows  # (n,) how often the tree was given it
    favourable: Sequence[
        Rows
    ]  # of each leaf: how often it holds each of its favourable rows, summed up from the largest
    total: NDArray[Any]  # (leaves,) rows it holds, repetitions counted

    def shares(self, k: int) -> Array:
        """(leaves,) the favourable share of each leaf once k deletions have hit it as hard as they can."""
        held = np.array([sums[-1] if len(sums) else 0 for sums in self.favourable], float)
        lost = np.array([sums[min(k, len(sums)) - 1] if k and len(sums) else 0 for sums in self.favourable], float)
        left = self.total - lost
        return np.divide(held - lost, left, out=np.zeros(len(left)), where=left > 0)


def is_tree(model: Any) -> bool:
    """Whether a model is one of scikit-learn's trees or forests."""
    return type(model).__name__ in _KINDS


class TreeDeletion:
    """A fitted tree or forest, its training rows counted leaf by leaf; a score is the favourable share minus one half.

    Args:
        model: a fitted scikit-learn `DecisionTreeClassifier`, `RandomForestClassifier` or `ExtraTreesClassifier`.
        X: (n, features) what it was fitted to.
        y: (n,) with which labels.

    Raises:
        UsageError: the model is not fitted, weighs classes, or has not seen these rows.
    """

    def __init__(self, model: Any, X: ArrayLike, y: ArrayLike) -> None:
        if not hasattr(model, "classes_"):
            raise UsageError("the model is not fitted: call model.fit(X, y) first")
        if model.class_weight is not None:
            raise UsageError("trees with class_weight are not supported: fit without")
        self.model, self.X, self.y = model, np.asarray(X, float), np.asarray(y)
        self.rows, self._favourable = len(self.X), signs(y) > 0
        forest = hasattr(model, "estimators_")
        every = np.arange(self.rows)
        drawn = model.estimators_samples_ if forest else [every]
        self._models = model.estimators_ if forest else [model]
        self._trees = [self._counted(tree, rows) for tree, rows in zip(self._models, drawn, strict=True)]
        share = model.predict_proba(self.X)[:, 1] - 0.5
        if np.abs(self.scores(self.X) - share).max() > 1e-6:
            raise UsageError("the trees hold other rows than X and y: pass what they were fitted to, without weights")

    def scores(self, points: ArrayLike) -> Array:
        """(m,) mean favourable share of (m, features) points' leaves, minus one half; a tie is negative."""
        places = self._places(np.asarray(points, float))
        return np.mean([tree.shares(0)[where] for tree, where in places], axis=0) - 0.5 - _TIE

    def worst(self, x: Array, k: int) -> tuple[float, Rows]:
        """What no k deletions can take the score of x below while the splits stay, and rows that come nearest to it."""
        places = [(tree, int(where[0])) for tree, where in self._places(x[None])]
        lowest = np.mean([tree.shares(k)[where] for tree, where in places]) - 0.5 - _TIE
        harm = np.zeros(self.rows)
        for tree, where in places:
            harm += tree.times * (self._favourable & (tree.where == where)) / max(tree.total[where], 1)
        rows = np.argsort(-harm, kind="stable")[:k]
        return float(lowest), rows[harm[rows] > 0]

    def recounted(self, x: Array, removals: Iterable[Sequence[int] | Rows]) -> Array:
        """Scores of x, one for each set of rows that go while the splits stay; an emptied leaf is unfavourable."""
        held = [np.where(tree.where == where[0], tree.times, 0) for tree, where in self._places(x[None])]
        scores = []
        for rows in removals:
            left = [times.copy() for times in held]
            for times in left:
                times[list(rows)] = 0
            scores.append(np.mean([times[self._favourable].sum() / max(times.sum(), 1) for times in left]))
        return np.array(scores) - 0.5 - _TIE

    def nearest(
        self,
        x0: Array,
        k: int,
        delta: float,
        free: NDArray[np.bool_],
        low: Array,
        high: Array,
        encoding: TableEncoding | None = None,
    ) -> Array:
        """The nearest point whose worst score reaches δ; where there is none, the nearest that is accepted now.

        Raises:
            DemurError: the leaves of the forest cut each other into too many boxes to search through.
        """
        best, cost = None, np.inf
        for distance, x in self._boxes(x0, k, delta, np.where(free, low, x0), np.where(free, high, x0)):
            if distance >= cost:
                break
            point = x if encoding is None else encoding.snapped(x, x0, free)
            if self.worst(point, k)[0] >= delta and np.linalg.norm(point - x0) < cost:
                best, cost = point, float(np.linalg.norm(point - x0))
        if best is None and (k or delta > 0):
            return self.nearest(x0, 0, 0.0, free, low, high, encoding)
        return x0 if best is None else best

    def without(self, rows: Sequence[int] | Rows) -> Callable[[ArrayLike], Array]:
        """The score function after fitting again without some rows, with the same seed and the same bootstrap draws."""
        from sklearn.base import clone

        kept, classes = np.ones(self.rows), (self._favourable).astype(float)
        kept[list(rows)] = 0
        again = []
        for tree, model in zip(self._trees, self._models, strict=True):
            # Tree by tree: a forest that is given weights draws other rows.
            again.append(clone(model))
            if again[-1].random_state is None:
                again[-1].set_params(random_state=0)
            again[-1].fit(self.X.astype(np.float32), classes, sample_weight=kept * tree.times)

        def scores(points: ArrayLike) -> Array:
            shares = [tree.predict_proba(np.asarray(points, np.float32))[:, 1] for tree in again]
            return np.mean(shares, axis=0) - 0.5 - _TIE

        return scores

    def _counted(self, model: Any, rows: Rows) -> _Tree:
        tree, width = model.tree_, self.X.shape[1]
        leaves = np.flatnonzero(tree.children_left < 0)
        boxes: dict[Any, tuple[Array, Array]] = {0: (np.full(width, -np.inf), np.full(width, np.inf))}
        for node in range(tree.node_count):  # parents come before their children
            if tree.children_left[node] >= 0:
                low, high = boxes[node]
                feature, threshold = tree.feature[node], tree.threshold[node]
                left, right = high.copy(), low.copy()
                left[feature], right[feature] = min(high[feature], threshold), max(low[feature], threshold)
                boxes[tree.children_left[node]], boxes[tree.children_right[node]] = (low, left), (right, high)
        where = np.searchsorted(leaves, model.apply(self.X.astype(np.float32)))
        times = np.bincount(rows, minlength=self.rows)
        favourable = [np.cumsum(-np.sort(-times[self._favourable & (where == leaf)])) for leaf in range(len(leaves))]
        total = np.bincount(where, times, minlength=len(leaves))
        low, high = (np.stack([boxes[leaf][side] for leaf in leaves]) for side in (0, 1))
        return _Tree(model.apply, leaves, low, high, where, times, favourable, total)

    def _places(self, points: Array) -> list[tuple[_Tree, Rows]]:
        rounded = points.astype(np.float32)
        return [(tree, np.searchsorted(tree.leaves, tree.apply(rounded))) for tree in self._trees]

    def _boxes(self, x0: Array, k: int, delta: float, low: Array, high: Array) -> Iterator[tuple[float, Array]]:
        """Points that reach δ, one for each intersection of leaves, in order of their distance from x0 (A*)."""
        trees = [(tree.low, tree.high, tree.shares(k)) for tree in self._trees]
        goal = len(trees) * (delta + 0.5 + _TIE)
        order, visits = 0, 0
        unbounded = np.full(len(x0), np.inf)
        queue: list[tuple[float, int, int, float, Array, Array]] = [(0.0, 0, 0, 0.0, -unbounded, unbounded)]
        while queue:
            distance, _, depth, total, floor, ceiling = heapq.heappop(queue)
            if depth == len(trees):
                found = _nearest_inside(x0, floor, ceiling, low, high)
                assert found is not None  # or it would not stand in the queue
                yield distance, found
                continue
            rest = [_meeting(tree, floor, ceiling) for tree in trees[depth + 1 :]]
            hope = total + sum(float(shares[inside].max(initial=-np.inf)) for inside, shares in rest)
            leaf_low, leaf_high, shares = trees[depth]
            for leaf in np.flatnonzero(_meeting(trees[depth], floor, ceiling)[0] & (hope + shares >= goal)):
                visits += 1
                new_floor, new_ceiling = np.maximum(floor, leaf_low[leaf]), np.minimum(ceiling, leaf_high[leaf])
                point = _nearest_inside(x0, new_floor, new_ceiling, low, high)
                if point is None:
                    continue
                order += 1
                far = float(np.linalg.norm(point - x0))
                heapq.heappush(queue, (far, order, depth + 1, total + float(shares[leaf]), new_floor, new_ceiling))
            if visits > _VISITS:
                raise DemurError("the forest has too many intersecting leaves to search: use fewer or shallower trees")


def _meeting(tree: tuple[Array, Array, Array], floor: Array, ceiling: Array) -> tuple[NDArray[np.bool_], Array]:
    leaf_low, leaf_high, shares = tree
    inside: NDArray[np.bool_] = np.maximum(leaf_low, floor) < np.minimum(leaf_high, ceiling)
    return inside.all(axis=1), shares  # type: ignore[return-value]


def _nearest_inside(x0: Array, floor: Array, ceiling: Array, low: Array, high: Array) -> Array | None:
    """The nearest point of the box (floor, ceiling] within bounds, as trees see it: in single precision."""
    seen = x0.astype(np.float32)
    above = np.nextafter(floor.astype(np.float32), np.float32(np.inf))
    below = ceiling.astype(np.float32)
    below = np.where(below > ceiling, np.nextafter(below, np.float32(-np.inf)), below)
    x = np.where(seen < above, above.astype(float), np.where(seen > below, below.astype(float), x0))
    x = np.clip(x, low, high)
    rounded = x.astype(np.float32)
    return x if ((rounded >= above) & (rounded <= below)).all() else None
