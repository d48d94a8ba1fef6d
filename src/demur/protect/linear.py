"""Linear scores fitted to the last digit, and how every training row holds them where they are.

θ̂_w = argmin_θ (1/n) Σ_i w_i ℓ_i(θ) + λ/2 ‖θ‖²; the bias is free of the penalty, and deleting a row (w_i = 0) leaves n
and the penalty as they were, which is what a fixed `C` means in scikit-learn: λ = 1/(C n).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from demur.errors import DemurError, UsageError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]

__all__ = ["LinearDeletion", "LinearFit", "fit_linear", "from_sklearn", "signs"]

_STEPS = 100
_SETTLED = 0.02  # most by which a further Newton step may move a training row's score; scikit-learn's tol leaves 0.01
_SINGULAR = 1e-12


@dataclass(frozen=True)
class LinearFit:
    """A linear score f(x) = weights · x + bias, favourable where it is not negative.

    Attributes:
        weights: (features,).
        bias: a number.
        ridge: λ.
        loss: "logistic", over labels −1 and +1, or "squared", over any numbers.
    """

    weights: Array
    bias: float
    ridge: float
    loss: str = "logistic"

    @property
    def theta(self) -> Array:
        """(features + 1,) weights and bias."""
        return np.append(self.weights, self.bias)

    def scores(self, points: ArrayLike) -> Array:
        """(m,) scores of (m, features) points."""
        return (np.asarray(points, float) @ self.weights + self.bias).astype(np.float64, copy=False)


def signs(y: ArrayLike) -> Array:
    """(n,) labels as −1 and +1; the larger of the two values is the favourable one.

    Raises:
        UsageError: there are not two values.
    """
    values, which = np.unique(np.asarray(y), return_inverse=True)
    if len(values) != 2:
        raise UsageError(f"the labels have {len(values)} values: recourse needs a favourable and an unfavourable one")
    return np.where(which == 1, 1.0, -1.0)


def fit_linear(
    X: ArrayLike,
    y: ArrayLike,
    ridge: float = 1e-3,
    loss: str = "logistic",
    weights: ArrayLike | None = None,
    start: LinearFit | None = None,
) -> LinearFit:
    """Fit a linear score by Newton's method, to a gradient below 1e-10.

    Args:
        X: (n, features).
        y: (n,) labels of two values, or any numbers for the squared loss.
        ridge: λ of the penalty λ/2 ‖weights‖² beside the mean loss.
        loss: "logistic" or "squared" (half the squared error).
        weights: (n,) how much each row counts; the mean is over n whatever they are.
        start: where to begin, for instance at the fit before some rows went.

    Raises:
        UsageError: the loss is unknown, or the shapes do not fit.
        DemurError: there is no finite minimum, as for separable classes without a ridge.
    """
    Z, targets = _design(X, y, loss)
    counts = np.ones(len(Z)) if weights is None else np.asarray(weights, float)
    penalty = _penalty(Z.shape[1], ridge)
    theta = np.zeros(Z.shape[1]) if start is None else start.theta.copy()
    value = _objective(theta, Z, targets, counts, penalty, loss)
    for _ in range(_STEPS):
        first, second = _derivatives(Z @ theta, targets, loss)
        gradient = (counts * first) @ Z / len(Z) + penalty * theta
        if np.abs(gradient).max() < 1e-10:
            return LinearFit(theta[:-1], float(theta[-1]), ridge, loss)
        hessian = (Z.T * (counts * second)) @ Z / len(Z) + np.diag(penalty)
        step = np.linalg.lstsq(hessian, gradient, rcond=None)[0]
        length = 1.0
        while (moved := _objective(theta - length * step, Z, targets, counts, penalty, loss)) > value + 1e-14:
            length /= 2
            if length < 1e-10:
                break
        theta, value = theta - length * step, moved
    raise DemurError(
        f"the fit does not settle (gradient {np.abs(gradient).max():.1e} after {_STEPS} Newton steps): give it a ridge"
    )


def from_sklearn(model: Any, rows: int) -> LinearFit:
    """What a fitted `sklearn.linear_model.LogisticRegression` minimised, with C as λ = 1/(C n).

    Raises:
        UsageError: it is not fitted, has another penalty, no bias, weighs classes or has more than two of them.
    """
    if not hasattr(model, "coef_"):
        raise UsageError("the model is not fitted: call model.fit(X, y) first")
    if model.coef_.shape[0] != 1:
        raise UsageError(f"the model tells {len(model.classes_)} classes apart: recourse needs two")
    mixed = model.l1_ratio not in (None, 0, 0.0)
    if mixed or getattr(model, "penalty", "l2") not in ("l2", "deprecated", None) or model.class_weight is not None:
        raise UsageError("only LogisticRegression with an L2 penalty or none, and without class_weight, is supported")
    if not model.fit_intercept:
        raise UsageError("the model has no bias: fit it with fit_intercept=True")
    free = getattr(model, "penalty", "l2") is None or np.isinf(model.C)
    ridge = 0.0 if free else 1 / (model.C * rows)
    return LinearFit(model.coef_[0].astype(float), float(model.intercept_[0]), ridge)


class LinearDeletion:
    """A linear score and the first-order effect on it of every training row.

    Removing row i moves θ by +(1/n) H⁻¹ g_i, g_i = ∇ℓ_i(θ̂) and H the Hessian of what was minimised, so it moves the
    score of x by a_i(x)/n with a_i(x) = [x, 1] · H⁻¹ g_i.

    Args:
        fit: the fitted score.
        X: (n, features) what it was fitted to.
        y: (n,) and with which labels.
        damping: added to H's diagonal.

    Raises:
        UsageError: the fit is not a minimum of its objective on this data, or H is singular.
    """

    linear = True

    def __init__(self, fit: LinearFit, X: ArrayLike, y: ArrayLike, damping: float = 0.0) -> None:
        self.fit, self.X, self.y = fit, np.asarray(X, float), np.asarray(y)
        Z, targets = _design(X, y, fit.loss)
        if Z.shape[1] != len(fit.theta):
            raise UsageError(f"the model takes {len(fit.weights)} features, X has {Z.shape[1] - 1}")
        self.rows = len(Z)
        penalty = _penalty(Z.shape[1], fit.ridge)
        first, second = _derivatives(Z @ fit.theta, targets, fit.loss)
        hessian = (Z.T * second) @ Z / self.rows + np.diag(penalty + damping)
        spectrum = np.linalg.eigvalsh(hessian)
        if spectrum[0] <= _SINGULAR * spectrum[-1]:
            raise UsageError(
                "the Hessian is singular (columns that depend on each other): pass damping=1e-3 or a ridge"
            )
        gradient = first @ Z / self.rows + penalty * fit.theta
        moved = np.abs(Z @ np.linalg.solve(hessian, gradient)).max()
        if moved > _SETTLED:
            raise UsageError(
                f"the model has not converged on this data (gradient {np.abs(gradient).max():.1e}; a Newton step moves "
                f"a score by {moved:.1e}): fit it with a smaller tol, or pass the X and y it was fitted to"
            )
        self._effects = np.linalg.solve(hessian, (Z * first[:, None]).T)

    def scores(self, points: ArrayLike) -> Array:
        """(m,) scores of (m, features) points."""
        return self.fit.scores(points)

    def gradient(self, x: Array) -> Array:
        """(features,) derivative of the score."""
        return self.fit.weights

    def influence(self, x: Array) -> Array:
        """(n,) a_i(x)."""
        return np.append(x, 1.0) @ self._effects

    def influence_gradient(self, x: Array, rows: NDArray[np.intp]) -> Array:
        """(features,) derivative of Σ a_i(x) over some rows."""
        return self._effects[:-1, rows].sum(axis=1)

    def moved(self, rows: Sequence[int] | NDArray[np.intp]) -> LinearFit:
        """The fit that the expansion predicts once some rows are gone."""
        theta = self.fit.theta + self._effects[:, list(rows)].sum(axis=1) / self.rows
        return LinearFit(theta[:-1], float(theta[-1]), self.fit.ridge, self.fit.loss)

    def refit(self, rows: Sequence[int] | NDArray[np.intp]) -> LinearFit:
        """The fit without some rows, really fitted."""
        weights = np.ones(self.rows)
        weights[list(rows)] = 0.0
        return fit_linear(self.X, self.y, self.fit.ridge, self.fit.loss, weights, self.fit)

    def without(self, rows: Sequence[int] | NDArray[np.intp]) -> Callable[[ArrayLike], Array]:
        """The score function of `refit`."""
        return self.refit(rows).scores


def _design(X: ArrayLike, y: ArrayLike, loss: str) -> tuple[Array, Array]:
    points = np.asarray(X, float)
    if points.ndim != 2 or len(points) != len(np.asarray(y)):
        raise UsageError(f"X is {points.shape} and y has {len(np.asarray(y))} values: give a row of X for each label")
    if loss not in ("logistic", "squared"):
        raise UsageError(f"the loss {loss!r} is unknown: logistic or squared")
    targets = signs(y) if loss == "logistic" else np.asarray(y, float)
    return np.column_stack([points, np.ones(len(points))]), targets


def _penalty(width: int, ridge: float) -> Array:
    penalty = np.full(width, float(ridge))
    penalty[-1] = 0.0
    return penalty


def _derivatives(scores: Array, targets: Array, loss: str) -> tuple[Array, Array]:
    """First and second derivative of each row's loss with respect to its score."""
    if loss == "squared":
        return scores - targets, np.ones_like(scores)
    from scipy.special import expit

    wrong = expit(-targets * scores)
    return -targets * wrong, wrong * (1 - wrong)


def _objective(theta: Array, Z: Array, targets: Array, counts: Array, penalty: Array, loss: str) -> float:
    scores = Z @ theta
    losses = np.logaddexp(0, -targets * scores) if loss == "logistic" else (scores - targets) ** 2 / 2
    return float(counts @ losses / len(Z) + penalty @ theta**2 / 2)
