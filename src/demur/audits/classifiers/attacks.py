"""Membership inference on one model: can an attacker tell the forgotten rows from rows that were never seen?

Two of the attacks count in opposite directions, so each result is named by what it counts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from demur.errors import UsageError

__all__ = ["entropy", "mia_confidence", "mia_entropy", "mia_loss", "modified_entropy"]

Floats = NDArray[np.float64]


def entropy(probabilities: Floats) -> Floats:
    """(rows,) -Σ p log p in nats, of (rows, classes)."""
    from scipy.special import xlogy

    return np.asarray(-xlogy(probabilities, probabilities).sum(1))


def modified_entropy(probabilities: Floats, labels: NDArray[np.int64]) -> Floats:
    """(rows,) -(1 - p_y) log p_y - Σ over other classes of p log(1 - p), in nats (Song and Mittal 2021).

    Args:
        probabilities: (rows, classes).
        labels: (rows,).
    """
    from scipy.special import xlog1py, xlogy

    rows = np.arange(len(labels))
    own = probabilities[rows, labels]
    others = xlog1py(probabilities, -probabilities)
    others[rows, labels] = 0
    return np.asarray(-xlogy(1 - own, own) - others.sum(1))


def mia_confidence(retain: Floats, test: Floats, forget: Floats) -> float:
    """Share of the forget rows that an attack on the true label's probability takes for never seen.

    A support vector machine (RBF, C = 3) is fitted on as many retain rows as test rows; a retrained model's own value
    is the aim (Jia et al. 2023, arXiv 2304.04934).

    Args:
        retain, test, forget: probability of the true label, a number a row; test rows were never trained on.

    Raises:
        UsageError: a set is empty.
    """
    from sklearn.svm import SVC

    _require(retain=retain, test=test, forget=forget)
    size = min(len(retain), len(test))
    known = np.concatenate([retain[:size], test[:size]])[:, None]
    attack = SVC(C=3, gamma="auto", kernel="rbf").fit(known, np.repeat([1, 0], size))
    return float(1 - attack.predict(forget[:, None]).mean())


def mia_entropy(retain: Floats, test: Floats, forget: Floats) -> float:
    """Share of the forget rows that an attack on the outputs' entropy takes for members (Chundawat et al. 2023).

    Lower is more forgotten; far below a retrained model's value is too much of it.

    Args:
        retain, test, forget: entropy of the outputs, a number a row.

    Raises:
        UsageError: a set is empty.
    """
    from sklearn.linear_model import LogisticRegression

    _require(retain=retain, test=test, forget=forget)
    known = np.concatenate([retain, test])[:, None]
    member = np.repeat([1, 0], [len(retain), len(test)])
    attack = LogisticRegression(class_weight="balanced").fit(known, member)
    return float(attack.predict(forget[:, None]).mean())


def mia_loss(forget: Floats, test: Floats, seed: int = 0) -> float:
    """Accuracy with which losses on forget rows are told from those on test rows; .5 is ideal (arXiv 2302.09880).

    Mean over five stratified splits of equally many rows of both, losses cut to ±100.

    Args:
        forget: cross entropies.
        test: of rows never trained on, of the same classes.
        seed: of the draw that makes the sides equal, and of the splits.

    Raises:
        UsageError: a side has fewer than ten rows.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedShuffleSplit, cross_val_score

    size = min(len(forget), len(test))
    if size < 10:
        raise UsageError(f"the loss attack needs ten rows on either side, not {size}")
    draw = np.random.default_rng(seed)
    sides = [values[draw.permutation(len(values))[:size]] for values in (forget, test)]
    losses = np.clip(np.concatenate(sides), -100, 100)[:, None]
    splits = StratifiedShuffleSplit(n_splits=5, random_state=seed)
    return float(cross_val_score(LogisticRegression(), losses, np.repeat([1, 0], size), cv=splits).mean())


def _require(**sets: Floats) -> None:
    for name, values in sets.items():
        if not len(values):
            raise UsageError(f"membership inference needs {name} rows")
