"""Does a model find false answers as likely as the true one: TOFU's truth ratio.

R = P̄_false / (P_true + 1e-10), where P_true = exp(−mean NLL) of the paraphrased answer (of the answer itself where a
row has no paraphrase) and P̄_false is the *geometric* mean over the false answers, as the published numbers are
computed; the paper's text says arithmetic (TOFU, arXiv 2401.06121, section 2.2.1; the true share is OpenUnlearning's,
arXiv 2506.12618).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from demur.errors import UsageError
from demur.registry import nearest

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["Aggregator", "truth_ratio_scores", "truth_ratio_summary", "truth_ratios", "truth_shares"]

Aggregator = Literal["closer_to_1_better", "true_better", "prob_mean"]
_EPSILON = 1e-10


def _probabilities(true_nll: ArrayLike, false_nlls: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    true = np.asarray(true_nll, dtype=np.float64)
    false = np.asarray(false_nlls, dtype=np.float64)
    if false.shape[:-1] != true.shape or not false.shape[-1]:
        raise UsageError(f"false answers of shape {false.shape} do not belong to true answers of shape {true.shape}")
    return np.exp(-true), np.exp(-false.mean(axis=-1))


def truth_ratios(true_nll: ArrayLike, false_nlls: ArrayLike) -> NDArray[np.float64]:
    """R of each row: how likely false answers are against the true one; 1 means the model cannot tell.

    Args:
        true_nll: (...,) mean NLL of the true answer, in nats a token.
        false_nlls: (..., k) those of the k ≥ 1 false answers.

    Returns:
        (...,) ratios ≥ 0.

    Raises:
        UsageError: the shapes do not fit.
    """
    true, false = _probabilities(true_nll, false_nlls)
    return false / (true + _EPSILON)


def truth_shares(true_nll: ArrayLike, false_nlls: ArrayLike) -> NDArray[np.float64]:
    """P_true / (P_true + P̄_false + 1e-10) of each row, the score behind the aggregator `prob_mean`.

    Args, Returns, Raises: as `truth_ratios`; values lie in [0, 1).
    """
    true, false = _probabilities(true_nll, false_nlls)
    return true / (true + false + _EPSILON)


def truth_ratio_scores(ratios: ArrayLike, aggregator: Aggregator) -> NDArray[np.float64]:
    """What each row contributes to the aggregate, which is their mean.

    Args:
        ratios: (n,) truth ratios, or truth shares for "prob_mean".
        aggregator: "closer_to_1_better" is min(R, 1/(R + 1e-10)), for the forget set; "true_better" is max(0, 1 − R),
            for everything that must be kept; "prob_mean" leaves the truth shares as they are.

    Raises:
        UsageError: the aggregator is unknown.
    """
    ratios = np.asarray(ratios, dtype=np.float64)
    if aggregator == "closer_to_1_better":
        return np.minimum(ratios, 1.0 / (ratios + _EPSILON))
    if aggregator == "true_better":
        return np.maximum(0.0, 1.0 - ratios)
    if aggregator == "prob_mean":
        return ratios
    known = ("closer_to_1_better", "true_better", "prob_mean")
    raise UsageError(f"unknown truth-ratio aggregator {aggregator!r}: {nearest(aggregator, known)}")


def truth_ratio_summary(ratios: ArrayLike, aggregator: Aggregator) -> float:
    """The aggregated truth ratio of a set of rows; arguments as `truth_ratio_scores`."""
    return float(truth_ratio_scores(ratios, aggregator).mean())
