"""Membership inference on one model: can an attacker tell the forgotten rows from rows that were never seen?

Two of the attacks count in opposite directions, so each result is named by what it counts.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from demur.errors import UsageError

__all__ = [
    "ThresholdAttack",
    "entropy",
    "entropy_attack",
    "mia_class_threshold",
    "mia_confidence",
    "mia_entropy",
    "mia_loss",
    "modified_entropy",
    "svm_attack",
]

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

_LEAST = 1e-30  # what the code of the SalUn family takes for a probability of 0


def entropy(probabilities: Floats) -> Floats:
    """(rows,) -Σ p log p in nats, of (rows, classes)."""
    from scipy.special import xlogy

    return np.asarray(-xlogy(probabilities, probabilities).sum(1))


def modified_entropy(probabilities: Floats, labels: Labels, compat: bool = False) -> Floats:
    """(rows,) -(1 - p_y) log p_y - Σ over other classes of p log(1 - p), in nats (Song and Mittal 2021).

    Args:
        probabilities: (rows, classes).
        labels: (rows,).
        compat: as the released code of SalUn and its kin computes it: log p in the place of log(1 - p), and a class
            that is the label of some row is treated in all rows as if it were theirs.
    """
    from scipy.special import xlog1py, xlogy

    if compat:
        shown = np.isin(np.arange(probabilities.shape[1]), labels)
        logs = np.log(np.where(probabilities > 0, probabilities, _LEAST))
        return np.asarray(-(np.where(shown, 1 - probabilities, probabilities) * logs).sum(1))
    rows = np.arange(len(labels))
    own = probabilities[rows, labels]
    others = xlog1py(probabilities, -probabilities)
    others[rows, labels] = 0
    return np.asarray(-xlogy(1 - own, own) - others.sum(1))


def mia_confidence(retain: Floats, test: Floats, forget: Floats, seed: int | None = 0) -> float:
    """Share of the forget rows that an attack on the true label's probability takes for never seen.

    A support vector machine (RBF, C = 3) is fitted on as many retain rows as test rows; a retrained model's own value
    is the aim (Jia et al. 2023, arXiv 2304.04934). Other features than the probability do as well: entropy, modified
    entropy, correctness, or all probabilities of a row.

    Args:
        retain, test, forget: probability of the true label, a number a row, or (rows, features); test rows were never
            trained on.
        seed: of the draw that makes the sides equal; None takes the first rows of the larger side, as the released
            code does with retain rows.

    Raises:
        UsageError: a set is empty.
    """
    return float(1 - svm_attack(retain, test, forget, seed).mean())


def svm_attack(retain: Floats, test: Floats, forget: Floats, seed: int | None = 0) -> Floats:
    """(rows,) 1 where the attack of `mia_confidence` takes a forget row for a member, else 0."""
    from sklearn.svm import SVC

    _require(retain=retain, test=test, forget=forget)
    size = min(len(retain), len(test))
    sides = [_some(side, size, seed).reshape(size, -1) for side in (retain, test)]
    attack = SVC(C=3, gamma="auto", kernel="rbf").fit(np.concatenate(sides), np.repeat([1, 0], size))
    return np.asarray(attack.predict(forget.reshape(len(forget), -1)), dtype=np.float64)


def _some(side: Floats, size: int, seed: int | None) -> Floats:
    """That many rows in their order."""
    if seed is None or len(side) == size:
        return side[:size]
    return side[np.sort(np.random.default_rng(seed).permutation(len(side))[:size])]


def mia_entropy(retain: Floats, test: Floats, forget: Floats) -> float:
    """Share of the forget rows that an attack on the outputs' entropy takes for members (Chundawat et al. 2023).

    Lower is more forgotten; far below a retrained model's value is too much of it.

    Args:
        retain, test, forget: entropy of the outputs, a number a row.

    Raises:
        UsageError: a set is empty.
    """
    return float(entropy_attack(retain, test, forget).mean())


def entropy_attack(retain: Floats, test: Floats, forget: Floats) -> Floats:
    """(rows,) 1 where the attack of `mia_entropy` takes a forget row for a member, else 0."""
    from sklearn.linear_model import LogisticRegression

    _require(retain=retain, test=test, forget=forget)
    known = np.concatenate([retain, test])[:, None]
    member = np.repeat([1, 0], [len(retain), len(test)])
    attack = LogisticRegression(class_weight="balanced").fit(known, member)
    return np.asarray(attack.predict(forget[:, None]), dtype=np.float64)


class ThresholdAttack(NamedTuple):
    """What `mia_class_threshold` calls right on either side.

    Attributes:
        member_rate: share of the possible members that it calls members.
        nonmember_rate: share of the rows never seen that it calls so.
    """

    member_rate: float
    nonmember_rate: float


def mia_class_threshold(
    members: tuple[Floats, Labels],
    unseen: tuple[Floats, Labels],
    target: tuple[Floats, Labels],
    target_unseen: tuple[Floats, Labels],
) -> ThresholdAttack:
    """A threshold for each class, above which a row is called a member (Song and Mittal 2021, arXiv 2003.10595).

    Each is the one that maximises ½ (TPR + TNR) on the shadow rows of its class, the first such among the members'
    values and then the others'.

    Args:
        members, unseen: scores, higher for members, and labels of the shadow rows that were and were not trained on.
        target: those of the rows to judge.
        target_unseen: those of rows never seen, other ones than in `unseen`.

    Raises:
        UsageError: a class to judge has no shadow rows on one side.
    """
    called = []
    for values, labels in (target, target_unseen):
        hits = np.zeros(len(values), dtype=bool)
        for label in np.unique(labels):
            known, other = (side[0][side[1] == label] for side in (members, unseen))
            if not len(known) or not len(other):
                raise UsageError(f"the threshold attack has no shadow rows of class {label} on one side")
            hits[labels == label] = values[labels == label] >= _threshold(known, other)
        called.append(hits)
    return ThresholdAttack(float(called[0].mean()), float(1 - called[1].mean()))


def _threshold(members: Floats, unseen: Floats) -> float:
    candidates = np.concatenate([members, unseen])
    found = 1 - np.searchsorted(np.sort(members), candidates, side="left") / len(members)
    spared = np.searchsorted(np.sort(unseen), candidates, side="left") / len(unseen)
    return float(candidates[np.argmax(found + spared)])


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


def _require(**sets: Any) -> None:
    for name, values in sets.items():
        if not len(values):
            raise UsageError(f"membership inference needs {name} rows")
