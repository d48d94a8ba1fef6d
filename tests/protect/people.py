"""Small invented sets of people for recourse."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from demur.data.tables import TableEncoding, read_table
from demur.protect import LinearFit, fit_linear

Array = NDArray[np.float64]


def people(n: int = 80, features: int = 4, seed: int = 0) -> tuple[Array, NDArray[np.int64]]:
    """Points in the unit cube whose label leans on the first features."""
    rng = np.random.default_rng(seed)
    X = rng.uniform(size=(n, features))
    lean = 4 * (X[:, 0] + 0.5 * X[:, 1] - 0.8) + rng.logistic(size=n)
    return X, (lean > 0).astype(np.int64)


def refused(fit: LinearFit, X: Array, count: int = 1) -> Array:
    """The first rows that a fit turns down."""
    return X[fit.scores(X) < 0][:count]


def compas(n: int, seed: int, ridge: float) -> tuple[Array, Array, LinearFit, Array]:
    """Real people: training rows, labels, the fit, and those of the others that it turns down."""
    here = os.environ.get("DEMUR_SHARED_DATA") or Path(__file__).parents[3] / "shared" / "data"
    file = Path(here) / "compas_recourse" / "compas.csv"
    if not file.is_file():
        pytest.skip("compas_recourse is not here: set DEMUR_SHARED_DATA")
    table = read_table(file)
    y = table.pop("score").to_numpy()
    X = TableEncoding.of(table).encode(table)
    order = np.random.default_rng(seed).permutation(len(X))
    train, rest = order[:n], order[n:]
    fit = fit_linear(X[train], y[train], ridge)
    return X[train], y[train], fit, refused(fit, X[rest], 40)
