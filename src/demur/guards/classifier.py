"""Does a prompt concern the forget set? What the model's state says and what the prompt's words say, weighed.

p = σ(a · s + b · t + c)

s are the log-odds of the paper's classifier on the model's hidden state, t those of a logistic regression on the
prompt's text vector. a, b ≥ 0 and c are fitted to what either said of prompts that it was not fitted on (stacked
generalisation, Wolpert 1992): a network that learned its prompts by heart is as sure of others, and gets the weight
that this is worth. The state knows meaning; the words know names, which a small model confuses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from demur.errors import UsageError
from demur.guards.detector import EPOCHS, StateClassifier, fit_states

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Features", "FitReport", "PromptClassifier", "Seen", "fit_classifier"]

FOLDS = 2
_FEWEST = 10  # prompts of either kind from which on some can be held out
_STRENGTH = 10.0  # inverse of the penalty on the words' weights, whose vectors are of unit length

Features = Literal["both", "state", "words"]


class Seen(NamedTuple):
    """What a classifier sees of n prompts.

    Attributes:
        states: (n, hidden) mean hidden states; None where they are not looked at.
        words: (n, d) text vectors, an array or a sparse matrix; None where they are not looked at.
    """

    states: NDArray[np.float32] | None
    words: Any

    def at(self, rows: Any) -> Seen:
        """Some of the prompts."""
        return Seen(*(None if part is None else part[rows] for part in (self.states, self.words)))

    def joined(self, more: Seen) -> Seen:
        """These prompts, and more after them."""
        return Seen(
            None if self.states is None else np.concatenate([self.states, more.states]), _rows(self.words, more.words)
        )

    @property
    def size(self) -> int:
        """n."""
        return int((self.words if self.states is None else self.states).shape[0])


def _rows(first: Any, second: Any) -> Any:
    if first is None or not hasattr(first, "toarray"):
        return None if first is None else np.concatenate([first, second])
    from scipy.sparse import vstack

    return vstack([first, second], format="csr")


@dataclass(frozen=True)
class FitReport:
    """What fitting a guard's classifier found.

    Attributes:
        forget, negatives: prompts it was fitted on.
        held_out: prompts that were judged by a classifier that was not fitted on them; 0 where there were too few.
        auc, accuracy: of those judgements; None where there were too few prompts.
    """

    forget: int
    negatives: int
    held_out: int
    auc: float | None
    accuracy: float | None


@dataclass(frozen=True)
class PromptClassifier:
    """Both sides of the evidence, and what each weighs.

    Attributes:
        state: on hidden states; None where only words are looked at.
        weights: (d,) of the logistic regression on text vectors; None where only states are looked at.
        bias: of that regression.
        mix: a, b and c.
        reach: the state's log-odds are cut off at ± this, the most that it said of prompts it was not fitted on.
    """

    state: StateClassifier | None
    weights: NDArray[np.float64] | None
    bias: float
    mix: tuple[float, float, float]
    reach: float

    def probabilities(self, seen: Seen) -> NDArray[np.float64]:
        """(n,) probability that each prompt concerns the forget set.

        Raises:
            UsageError: the features are of another dimension than those that it was fitted on.
        """
        if self.state is None:
            return self._mixed(0.0, self._words(seen.words))
        assert seen.states is not None
        if seen.states.shape[1] != len(self.state.mean):
            raise UsageError(
                f"prompts have {seen.states.shape[1]} features, the guard's classifier was fitted on "
                f"{len(self.state.mean)}"
            )
        said = np.clip(self.state.log_odds(seen.states), -self.reach, self.reach)
        return self._mixed(said, self._words(seen.words))

    def bounds(self, words: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The least and the greatest `probabilities` that prompts can have, whatever their states say."""
        said, reach = self._words(words), 0.0 if self.state is None else self.reach
        return self._mixed(-reach, said), self._mixed(reach, said)

    def _words(self, words: Any) -> Any:
        return 0.0 if self.weights is None else np.asarray(words @ self.weights).ravel() + self.bias

    def _mixed(self, state: Any, words: Any) -> NDArray[np.float64]:
        from scipy.special import expit

        a, b, c = self.mix
        mixed: NDArray[np.float64] = expit(a * np.asarray(state) + b * np.asarray(words) + c)
        return mixed

    def tensors(self) -> dict[str, NDArray[Any]]:
        """All that it learned, by name."""
        found: dict[str, NDArray[Any]] = {"mix": np.array([*self.mix, self.reach, self.bias])}
        if self.weights is not None:
            found["words"] = self.weights
        if self.state is not None:
            found |= {f"state.{name}": value.numpy() for name, value in self.state.state_dict().items()}
        return found

    @classmethod
    def restore(cls, tensors: Mapping[str, NDArray[Any]]) -> PromptClassifier:
        """The classifier with these `tensors`."""
        import torch

        prefix = "state."
        state = {n.removeprefix(prefix): torch.from_numpy(v) for n, v in tensors.items() if n.startswith(prefix)}
        a, b, c, reach, bias = (float(value) for value in tensors["mix"])
        restored = StateClassifier.restore(state) if state else None
        return cls(restored, tensors.get("words"), bias, (a, b, c), reach)


def fit_classifier(
    forget: Seen, negatives: Seen, seed: int = 0, progress: Callable[[int, int], Any] | None = None
) -> tuple[PromptClassifier, FitReport]:
    """Fit both sides on all prompts, and their mix on what they say of prompts they were not fitted on.

    With fewer than ten prompts of either kind nothing is held out: the log-odds of both sides are added up.

    Args:
        forget, negatives: what is seen of prompts of either kind.
        seed: of the network and of what is held out.
        progress: called with epochs done and epochs in all.

    Raises:
        UsageError: there are no negatives.
    """
    if not negatives.size:
        raise UsageError("the guard needs prompts that are not to be guarded: pass some negatives")
    seen = forget.joined(negatives)
    labels = np.r_[np.ones(forget.size, np.int64), np.zeros(negatives.size, np.int64)]
    many = min(forget.size, negatives.size) >= _FEWEST
    done, total = 0, EPOCHS * (1 + FOLDS * many) * (seen.states is not None)

    def told() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    report, mix, reach = FitReport(forget.size, negatives.size, 0, None, None), (1.0, 1.0, 0.0), np.inf
    if many:
        said = np.zeros((len(labels), 2))
        for held in _folds(labels, seed):
            kept = np.setdiff1d(np.arange(len(labels)), held)
            said[held] = _log_odds(_sides(seen.at(kept), labels[kept], seed, told), seen.at(held))
        mix, reach = _mix(said, labels), float(np.abs(said[:, 0]).max())
        report = _measured(report, said @ np.array(mix[:2]) + mix[2], labels)
    state, weights, bias = _sides(seen, labels, seed, told)
    return PromptClassifier(state, weights, bias, mix, reach), report


_Sides = tuple[StateClassifier | None, "NDArray[np.float64] | None", float]


def _sides(seen: Seen, labels: NDArray[np.int64], seed: int, told: Callable[[], Any]) -> _Sides:
    from sklearn.linear_model import LogisticRegression

    state = None if seen.states is None else fit_states(seen.states, labels, seed, told)
    if seen.words is None:
        return state, None, 0.0
    model = LogisticRegression(C=_STRENGTH, class_weight="balanced", max_iter=1000).fit(seen.words, labels)
    return state, model.coef_[0].astype(np.float64), float(model.intercept_[0])


def _log_odds(sides: _Sides, seen: Seen) -> NDArray[np.float64]:
    """(n, 2) what the state and the words say; 0 for a side that is not looked at."""
    state, weights, bias = sides
    out = np.zeros((seen.size, 2))
    if state is not None and seen.states is not None:
        out[:, 0] = state.log_odds(seen.states)
    if weights is not None:
        out[:, 1] = np.asarray(seen.words @ weights).ravel() + bias
    return out


def _folds(labels: NDArray[np.int64], seed: int) -> Sequence[NDArray[np.int64]]:
    """Parts of all prompts with both kinds in equal shares."""
    from sklearn.model_selection import StratifiedKFold

    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(labels, labels)
    return [held for _, held in folds]


def _mix(said: NDArray[np.float64], labels: NDArray[np.int64]) -> tuple[float, float, float]:
    """The logistic regression of the labels on both sides' log-odds, with weights that are not negative."""
    from scipy.optimize import minimize
    from scipy.special import expit

    signs = np.where(labels == 1, 1.0, -1.0)
    weights = len(labels) / (2 * np.bincount(labels)[labels])
    inputs = np.c_[said, np.ones(len(said))]

    def loss(mix: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        margins = signs * (inputs @ mix)
        slopes = -weights * signs * expit(-margins)
        penalty = np.r_[mix[:2], 0.0]
        return float(weights @ np.logaddexp(0, -margins) + penalty @ penalty / 2), slopes @ inputs + penalty

    found = minimize(loss, [1.0, 1.0, 0.0], jac=True, method="L-BFGS-B", bounds=[(0, None), (0, None), (None, None)])
    a, b, c = (float(value) for value in found.x)
    return a, b, c


def _measured(report: FitReport, margins: NDArray[np.float64], labels: NDArray[np.int64]) -> FitReport:
    from sklearn.metrics import roc_auc_score

    auc, hits = roc_auc_score(labels, margins), np.mean((margins >= 0) == (labels == 1))
    return FitReport(report.forget, report.negatives, len(labels), float(auc), float(hits))
