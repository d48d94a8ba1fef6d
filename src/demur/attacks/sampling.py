"""Asking many times: what never comes as the likeliest answer may come once in a few samples (leak@k, 2511.04934)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from demur.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from demur.models import Engine, Prompt

__all__ = ["best_of_k", "leak_at_k"]


def best_of_k(scores: ArrayLike, k: int) -> NDArray[np.float64]:
    """Expected best of k of the samples, drawn without replacement: Σ_i s_(i) C(i − 1, k − 1) / C(n, k).

    Args:
        scores: (rows, n) a score for each sample.
        k: how many are drawn, 1 … n.

    Returns:
        (rows,) non-decreasing in k; at k = n the best sample.

    Raises:
        UsageError: k is out of range.
    """
    from scipy.special import gammaln

    ordered = np.sort(np.asarray(scores, dtype=np.float64), axis=1)
    n = ordered.shape[1]
    if not 1 <= k <= n:
        raise UsageError(f"the best of {k} needs at least {k} samples, and there are {n}")
    rank = np.arange(k, n + 1)

    def log_choose(a: NDArray[np.float64] | float, b: float) -> NDArray[np.float64]:
        return gammaln(np.asarray(a) + 1) - gammaln(b + 1) - gammaln(np.asarray(a) - b + 1)

    weights = np.exp(log_choose(rank - 1.0, k - 1.0) - log_choose(float(n), float(k)))
    return ordered[:, k - 1 :] @ (weights / weights.sum())


def leak_at_k(
    engine: Engine,
    prompts: Sequence[Prompt],
    score: Callable[[int, str], float],
    *,
    k: Sequence[int] = (1, 2, 4, 8),
    max_new_tokens: int = 64,
    temperature: float = 1.0,
    seed: int = 0,
) -> dict[int, NDArray[np.float64]]:
    """The best of k sampled answers to each question.

    Args:
        engine: answers; a guard around a model is one too.
        prompts: what is asked.
        score: from a prompt's number and an answer to what the answer gives away, in [0, 1].
        k: numbers of answers; as many are sampled as the largest.
        max_new_tokens, temperature, seed: as for `Engine.generate`.

    Returns:
        k → (n,) expected best score, non-decreasing in k.

    Raises:
        UsageError: a k is below 1.
    """
    samples = max(k)
    asked = [prompt for prompt in prompts for _ in range(samples)]
    answers = engine.generate(asked, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
    scores = np.array([score(i // samples, answer.text) for i, answer in enumerate(answers)])
    return {count: best_of_k(scores.reshape(len(prompts), samples), count) for count in k}
