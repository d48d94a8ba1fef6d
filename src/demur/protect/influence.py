"""What each training row does to a decision, and the worst that k deletions can do: a sum of the k smallest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from demur.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]
    Rows = NDArray[np.intp]

__all__ = ["Smooth", "deletion_influence", "rows_of", "smooth", "worst_deletions"]


class Smooth(Protocol):
    """A score that can be differentiated in its input and in its training rows.

    Attributes:
        rows: number of training rows n.
        linear: whether score and influences are linear in the input.
    """

    rows: int
    linear: bool

    def scores(self, points: ArrayLike) -> Array:
        """(m,) scores of (m, features) points, favourable where not negative."""

    def gradient(self, x: Array) -> Array:
        """(features,) derivative of the score at x."""

    def influence(self, x: Array) -> Array:
        """(n,) a_i(x): to first order, deleting row i adds a_i(x)/n to the score of x."""

    def influence_gradient(self, x: Array, rows: Rows) -> Array:
        """(features,) derivative of Σ a_i(x) over some rows."""

    def without(self, rows: Sequence[int] | Rows) -> Callable[[ArrayLike], Array]:
        """The score function after really refitting without some rows."""


def smooth(model: Any, X: ArrayLike, y: ArrayLike, damping: float = 0.0) -> Smooth:
    """A model as recourse sees it.

    Args:
        model: a `LinearFit`, a fitted scikit-learn `LogisticRegression`, a torch module, a `Network`, or something that
            is `Smooth` already.
        X: (n, features) what it was trained on.
        y: (n,) with which labels.
        damping: added to the Hessian's diagonal.

    Raises:
        UsageError: it is none of these, does not fit the data or has not converged.
    """
    from demur.protect.linear import LinearDeletion, LinearFit, from_sklearn

    if all(hasattr(model, name) for name in ("influence", "influence_gradient", "without")):
        return model
    if isinstance(model, LinearFit):
        return LinearDeletion(model, X, y, damping)
    if type(model).__name__ == "LogisticRegression":
        return LinearDeletion(from_sklearn(model, len(np.asarray(X))), X, y, damping)
    import torch

    from demur.protect.network import Network, NetworkDeletion

    if isinstance(model, torch.nn.Module):
        model = Network(model)
    if isinstance(model, Network):
        return NetworkDeletion(model, X, y, damping)
    raise UsageError(
        f"no recourse for {type(model).__name__}: give a LogisticRegression, a decision tree, a random forest, a "
        "LinearFit, a torch module or a Network"
    )


def deletion_influence(model: Any, X: ArrayLike, y: ArrayLike, x: ArrayLike, damping: float = 0.0) -> Array:
    """How deleting each training row would move the decision about one person, to first order.

    a_i(x) = ∇_θ f(x) · H⁻¹ ∇ℓ_i(θ̂); without row i the score of x is f(x) + a_i(x)/n. A negative value holds the
    decision up: losing that row pulls it down. (Infinitesimal jackknife as used by ROCERF, arXiv 2302.04288.)

    Args:
        model: as for `RobustCounterfactual`, trees excepted: they have no derivative.
        X: (n, features) training rows.
        y: (n,) their labels; the larger value is favourable.
        x: (features,) the person.
        damping: added to the Hessian's diagonal.

    Returns:
        (n,) a_i(x).

    Raises:
        UsageError: the model does not fit the data, has not converged, or its Hessian is singular.
    """
    return smooth(model, X, y, damping).influence(np.asarray(x, float))


def worst_deletions(influence: Array, k: int, exactly: bool = False) -> tuple[float, Rows]:
    """The lowest sum of k influences, and whose they are, the most harmful first.

    Args:
        influence: (n,) a_i(x).
        k: how many rows may go.
        exactly: as many must go, also where that helps; else rows with a positive influence stay.
    """
    if not k:
        return 0.0, np.empty(0, np.intp)
    rows = np.argpartition(influence, k - 1)[:k]
    rows = rows[np.argsort(influence[rows], kind="stable")]
    if not exactly:
        rows = rows[influence[rows] < 0]
    return float(influence[rows].sum()), rows


def rows_of(k: float, n: int) -> int:
    """A number of rows, or a share of n below 1 as a number of rows, at least one unless it is 0.

    Raises:
        UsageError: it is negative, no whole number, or leaves no row.
    """
    count = max(1, round(k * n)) if 0 < k < 1 else k
    if count != int(count) or count < 0:
        raise UsageError(f"k = {k}: give a number of rows such as 5, or a share such as 0.005")
    if count >= n:
        raise UsageError(f"k = {k} would delete all {n} training rows: give fewer")
    return int(count)
