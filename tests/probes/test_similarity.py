from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from demur.errors import UsageError
from demur.probes import cka, knn_accuracy, knn_predictions

X = [[1, 0], [0, 1], [1, 1], [2, 0]]
Y = [[1, 2, 0], [0, 1, 1], [2, 1, 0], [3, 0, 1]]


def _features(seed: int, rows: int, width: int) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(size=(rows, width))


def _gram_cka(k: NDArray[Any], m: NDArray[Any], unbiased: bool = False) -> float:
    """By the definition, from (rows, rows) kernels."""
    n = len(k)
    if not unbiased:
        h = np.eye(n) - 1 / n
        hsic = lambda a, b: np.trace(a @ h @ b @ h)  # noqa: E731
    else:
        k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
        one = np.ones(n)

        def hsic(a: NDArray[Any], b: NDArray[Any]) -> float:
            middle = (one @ a @ one) * (one @ b @ one) / ((n - 1) * (n - 2))
            return (np.trace(a @ b) + middle - 2 / (n - 2) * (one @ a @ b @ one)) / (n * (n - 3))

    return float(hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m)))


def test_the_worked_alignment() -> None:
    assert cka(X, Y) == pytest.approx(0.657376, abs=1e-6)


@pytest.mark.parametrize(("kernel", "estimator"), [("linear", "biased"), ("linear", "unbiased"), ("rbf", "biased")])
@given(seed=st.integers(0, 50), scale=st.floats(0.01, 100), rows=st.sampled_from([8, 40]))
def test_it_is_one_with_itself_and_does_not_see_turns_scales_and_shifts(
    kernel: Any, estimator: Any, seed: int, scale: float, rows: int
) -> None:
    x, y = _features(seed, rows, 5), _features(seed + 1, rows, 5)
    turn, _ = np.linalg.qr(_features(seed + 2, 5, 5))
    plain = cka(x, y, kernel, estimator)
    assert cka(x, x, kernel, estimator) == pytest.approx(1)
    assert cka(x @ turn * scale + 7, y, kernel, estimator) == pytest.approx(plain, abs=1e-9)
    assert cka(y, x, kernel, estimator) == pytest.approx(plain)
    order = np.random.default_rng(seed).permutation(rows)
    assert cka(x[order], y[order], kernel, estimator) == pytest.approx(plain)


def test_a_general_linear_map_is_seen() -> None:
    x = _features(0, 60, 4)
    assert cka(x @ np.diag([10.0, 1, 1, 1]), x) < 0.9


@pytest.mark.parametrize("unbiased", [False, True])
@given(seed=st.integers(0, 50), rows=st.sampled_from([6, 60]))
def test_kernels_and_covariances_give_the_same(unbiased: bool, seed: int, rows: int) -> None:
    x, y = _features(seed, rows, 4) + 3, _features(seed + 1, rows, 3)
    y += x[:, :3]
    expected = _gram_cka(x @ x.T, y @ y.T, unbiased)
    assert cka(x, y, estimator="unbiased" if unbiased else "biased") == pytest.approx(expected, abs=1e-10)


def test_the_width_of_the_rbf_kernel_is_the_median_distance_of_each_side() -> None:
    x, y = _features(0, 30, 3), np.exp(_features(0, 30, 3))
    kernels = []
    for side in (x, y):
        squared = np.square(side[:, None] - side[None]).sum(2)
        kernels.append(np.exp(-squared / (2 * np.median(squared[squared > 0]))))
    assert cka(x, y, "rbf") == pytest.approx(_gram_cka(*kernels), abs=1e-12)
    assert cka(np.repeat(x, 3, 0), np.repeat(y, 3, 0), "rbf") == pytest.approx(cka(x, y, "rbf"))


def test_independent_features_go_to_zero_with_many_rows_and_only_the_unbiased_estimator_with_few() -> None:
    assert cka(_features(0, 20000, 5), _features(1, 20000, 5)) < 0.002
    x, y = _features(2, 60, 200), _features(3, 60, 200)
    assert cka(x, y) > 0.5 and abs(cka(x, y, estimator="unbiased")) < 0.1


def test_without_centring_a_shared_mean_would_hide_everything() -> None:
    x, y = _features(0, 2000, 5) + 20, _features(1, 2000, 5) + 20
    plain = np.square(x.T @ y).sum() / np.sqrt(np.square(x.T @ x).sum() * np.square(y.T @ y).sum())
    assert plain > 0.99 and cka(x, y) < 0.02


def test_batches_are_averaged_and_one_too_small_is_left_out() -> None:
    x, y = _features(0, 41, 3), _features(1, 41, 3)
    parts = [cka(x[i : i + 10], y[i : i + 10]) for i in range(0, 40, 10)]
    assert cka(x, y, batch=10) == pytest.approx(np.mean(parts))


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
@pytest.mark.parametrize("rows", [5, 50])
def test_constant_features_have_no_alignment_and_say_so(kernel: Any, rows: int) -> None:
    with pytest.warns(UserWarning, match="the same for every row"):
        assert np.isnan(cka(np.full((rows, 2), 0.1), _features(0, rows, 2), kernel))


@pytest.mark.parametrize(
    ("x", "y", "options", "said"),
    [
        (X, Y[:3], {}, "of the same rows"),
        (X[:1], Y[:1], {}, "needs 2 rows, not 1"),
        (X[:3], Y[:3], {"estimator": "unbiased"}, "needs 4 rows, not 3"),
        (X, Y, {"batch": 1}, "needs 2 rows, not 1"),
        (X, Y, {"kernel": "cosine"}, "kernel linear or rbf"),
        (X, Y, {"estimator": "best"}, "biased or unbiased"),
    ],
)
def test_bad_calls_are_refused(x: Any, y: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        cka(x, y, **options)


@given(seed=st.integers(0, 30), k=st.integers(1, 7))
def test_neighbours_are_those_of_scikit_learn_and_of_a_sort_by_angle(seed: int, k: int) -> None:
    from sklearn.neighbors import KNeighborsClassifier

    known, asked = _features(seed, 40, 4), _features(seed + 1, 15, 4)
    labels, truth = (
        np.random.default_rng(seed).integers(3, size=40),
        np.random.default_rng(seed + 1).integers(3, size=15),
    )
    found = knn_predictions(known, labels, asked, k)
    library = KNeighborsClassifier(n_neighbors=k, metric="cosine").fit(known, labels)
    assert (found == library.predict(asked)).all()
    units = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in (asked, known)]
    nearest = np.argsort(-(units[0] @ units[1].T), axis=1)[:, :k]
    assert (found == [np.bincount(row, minlength=3).argmax() for row in labels[nearest]]).all()
    assert knn_accuracy(known, labels, asked, truth, k) == np.mean(found == truth)


def test_more_neighbours_than_rows_are_refused() -> None:
    with pytest.raises(UsageError, match="5 nearest neighbours cannot be found among 4 rows"):
        knn_accuracy(X, [0, 1, 0, 1], X, [0, 1, 0, 1])
