"""How alike two models' features are, and what a nearest-neighbour classifier still makes of them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import numpy as np

from demur.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["Estimator", "Kernel", "cka", "knn_accuracy", "knn_predictions"]

Kernel = Literal["linear", "rbf"]
Estimator = Literal["biased", "unbiased"]
_LEAST = {"biased": 2, "unbiased": 4}


def cka(
    x: ArrayLike, y: ArrayLike, kernel: Kernel = "linear", estimator: Estimator = "biased", batch: int | None = None
) -> float:
    """Centred kernel alignment of two models' features of the same rows (Kornblith et al. 2019, arXiv 1905.00414).

    CKA = HSIC(K, L) / √(HSIC(K, K) HSIC(L, L)), with kernels of either side. 1 means the same features up to a turn and
    a scale; it says nothing by itself: compare with what two models trained alike have.

    Args:
        x, y: (rows, features) of either model; row i of both is the same sample.
        kernel: "linear", or "rbf" with the median squared distance of either side, zeros left out, as its σ².
        estimator: "biased" (which few rows and many features raise) or "unbiased" (Song et al. 2012), which may be
            below 0. Do not mix them in one table.
        batch: mean over batches of so many rows in their order, as evaluations at scale do; a last batch too small
            for the estimator is left out. By default all rows are one.

    Returns:
        The alignment; nan, with a warning, where the features of one side are all the same.

    Raises:
        UsageError: the rows differ in number, are fewer than 2 (unbiased: 4), or a choice is unknown.
    """
    left, right = (np.asarray(side, dtype=np.float64) for side in (x, y))
    if kernel not in ("linear", "rbf") or estimator not in _LEAST:
        raise UsageError(f"CKA needs kernel linear or rbf and estimator biased or unbiased, not {kernel}, {estimator}")
    if left.ndim != 2 or right.ndim != 2 or len(left) != len(right):
        raise UsageError(f"CKA needs (rows, features) of the same rows, not {left.shape} and {right.shape}")
    size = len(left) if batch is None else batch
    least = _LEAST[estimator]
    if min(size, len(left)) < least:
        raise UsageError(f"{estimator} CKA needs {least} rows, not {min(size, len(left))}")
    starts = [start for start in range(0, len(left), size) if len(left) - start >= least]
    values = [_of_batch(left[i : i + size], right[i : i + size], kernel, estimator) for i in starts]
    if np.isnan(values).any():
        warnings.warn("CKA is undefined: the features of one side are the same for every row", stacklevel=2)
    return float(np.mean(values))


def _of_batch(x: NDArray[np.float64], y: NDArray[np.float64], kernel: str, estimator: str) -> float:
    if any(np.ptp(side, axis=0).max() <= 1e-12 * np.abs(side).max() for side in (x, y)):
        return float("nan")
    # What centring the kernels does anyway; done first it loses no digits to a far mean.
    x, y = x - x.mean(0), y - y.mean(0)
    # Linear kernels give the same numbers from (features, features) instead of (rows, rows) matrices.
    wide = kernel == "rbf" or len(x) <= x.shape[1] + y.shape[1]
    if wide:
        x, y = _gram(x, kernel), _gram(y, kernel)
    hsic = _HSIC[estimator, wide]
    both, own, other = hsic(x, y), hsic(x, x), hsic(y, y)
    if own <= 0 or other <= 0:
        return float("nan")
    return both / float(np.sqrt(own) * np.sqrt(other))


def _gram(x: NDArray[np.float64], kernel: str) -> NDArray[np.float64]:
    if kernel == "linear":
        return np.asarray(x @ x.T)
    from scipy.spatial.distance import pdist, squareform

    squared = pdist(x, "sqeuclidean")
    apart = squared[squared > 0]
    return np.asarray(np.exp(-squareform(squared) / (2 * (np.median(apart) if len(apart) else 1.0))))


def _hsic(k: NDArray[np.float64], m: NDArray[np.float64]) -> float:
    centred = [a - a.mean(0) - a.mean(1, keepdims=True) + a.mean() for a in (k, m)]
    return float((centred[0] * centred[1]).sum())


def _unbiased_hsic(k: NDArray[np.float64], m: NDArray[np.float64]) -> float:
    k, m = (a - np.diag(np.diag(a)) for a in (k, m))
    return _unbiased(float((k * m).sum()), k.sum(0), m.sum(0))


def _covariance(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    return float(np.square(x.T @ y).sum())


def _unbiased_covariance(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    diagonals = [np.square(side).sum(1) for side in (x, y)]
    rows = [side @ side.sum(0) - own for side, own in zip((x, y), diagonals, strict=True)]
    return _unbiased(_covariance(x, y) - float(diagonals[0] @ diagonals[1]), rows[0], rows[1])


def _unbiased(product: float, k: NDArray[np.float64], m: NDArray[np.float64]) -> float:
    """From the sum over the product of two kernels without their diagonals, and the sums of their rows."""
    n = len(k)
    return float((product + k.sum() * m.sum() / ((n - 1) * (n - 2)) - 2 * (k @ m) / (n - 2)) / (n * (n - 3)))


_HSIC: dict[tuple[str, bool], Callable[[NDArray[np.float64], NDArray[np.float64]], float]] = {
    ("biased", True): _hsic,
    ("biased", False): _covariance,
    ("unbiased", True): _unbiased_hsic,
    ("unbiased", False): _unbiased_covariance,
}


def knn_predictions(
    train_x: ArrayLike, train_y: ArrayLike, test_x: ArrayLike, k: int = 5, metric: str = "cosine"
) -> NDArray[np.int64]:
    """(rows,) the most frequent class among the k nearest training rows, the lowest where several are.

    Args:
        train_x: (training rows, features).
        train_y: (training rows,) class numbers.
        test_x: (rows, features).
        k: neighbours.
        metric: any of scikit-learn's; by "cosine" a row of zeros is equally far from all.

    Raises:
        UsageError: there are fewer training rows than neighbours.
    """
    from sklearn.neighbors import KNeighborsClassifier

    known = np.asarray(train_x)
    if not 1 <= k <= len(known):
        raise UsageError(f"{k} nearest neighbours cannot be found among {len(known)} rows")
    return np.asarray(
        KNeighborsClassifier(k, metric=metric).fit(known, np.asarray(train_y)).predict(np.asarray(test_x))
    )


def knn_accuracy(
    train_x: ArrayLike, train_y: ArrayLike, test_x: ArrayLike, test_y: ArrayLike, k: int = 5, metric: str = "cosine"
) -> float:
    """Share of the test rows whose class the k nearest training rows tell; arguments as for `knn_predictions`."""
    return float((knn_predictions(train_x, train_y, test_x, k, metric) == np.asarray(test_y)).mean())
