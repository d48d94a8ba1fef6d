"""Whether explanations hold once rows have really been deleted and the model has really been refitted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from demur.errors import UsageError
from demur.protect.influence import rows_of

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from demur.protect.recourse import Counterfactual

__all__ = ["Refit", "Validity", "validity"]

Scores = Callable[["ArrayLike"], "NDArray[np.float64]"]


@dataclass(frozen=True)
class Refit:
    """A way to train again without some rows; a call gives the new model's score function.

    Attributes:
        rows: number of training rows.
        fit: takes row numbers to leave out, returns a function from (m, features) points to (m,) scores. It should
            start where the first training ended, or from the same seed: other seeds change decisions too.
    """

    rows: int
    fit: Callable[[Sequence[int] | NDArray[np.intp]], Scores]

    def __call__(self, removed: Sequence[int] | NDArray[np.intp]) -> Scores:
        return self.fit(removed)


@dataclass(frozen=True)
class Validity:
    """Scores of counterfactuals after refits.

    Attributes:
        scores: (repeats, counterfactuals), favourable where not negative.
    """

    scores: NDArray[np.float64]

    @property
    def share(self) -> float:
        """Mean share of counterfactuals that are still accepted."""
        return float((self.scores >= 0).mean())

    @property
    def each(self) -> NDArray[np.float64]:
        """(counterfactuals,) the share of refits that accept each of them."""
        return (self.scores >= 0).mean(axis=0)

    @property
    def lowest(self) -> float:
        """The lowest score of all."""
        return float(self.scores.min())


def validity(
    counterfactuals: Sequence[Counterfactual],
    refit: Refit,
    *,
    fraction: float | None = None,
    k: int | None = None,
    repeats: int = 100,
    adversarial: bool = False,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Validity:
    """How many counterfactuals still hold after deletions and a refit.

    Args:
        counterfactuals: what to check.
        refit: how to train without given rows, for instance `RobustCounterfactual.refit`.
        fraction: share of the training rows that goes; or
        k: their number. With `adversarial` neither is needed.
        repeats: random deletions to try; each model judges all counterfactuals.
        adversarial: in place of random rows delete, for each counterfactual, its own worst points (the first k).
        seed: decides the random rows.
        progress: told how many refits of how many are done.

    Raises:
        UsageError: there is no counterfactual, both or neither of fraction and k are given, or they take all rows.
    """
    if not len(counterfactuals):
        raise UsageError("there is no counterfactual to check")
    if adversarial:
        scores = []
        for done, found in enumerate(counterfactuals, 1):
            scores.append(float(refit(found.worst_points[:k])(found.x[None])[0]))
            if progress:
                progress(done, len(counterfactuals))
        return Validity(np.array(scores)[None])
    if (fraction is None) == (k is None):
        raise UsageError("give either fraction, such as 0.01, or k, a number of rows")
    count = rows_of(k if k is not None else fraction, refit.rows)  # type: ignore[arg-type]
    points, rng, judged = np.stack([found.x for found in counterfactuals]), np.random.default_rng([seed, 17]), []
    for done in range(1, repeats + 1):
        judged.append(refit(rng.choice(refit.rows, count, replace=False))(points))
        if progress:
            progress(done, repeats)
    return Validity(np.stack(judged))
