"""How much of an answer a model knows: the probability that it gives to the true one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from demur.models.token_statistics import token_stats

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from demur.data import Encoded
    from demur.models import LanguageModel

__all__ = ["answer_probability"]


def answer_probability(lm: LanguageModel, encoded: Sequence[Encoded], *, batch_size: int = 32) -> NDArray[np.float64]:
    """Probability of each answer, per token: exp of its mean token log-probability, end of text included.

    Args:
        lm: the model; put in eval mode.
        encoded: prompts with their true answers (see `demur.models.encode`).
        batch_size: answers in one forward pass.

    Returns:
        (n,) numbers in [0, 1], in the order given.

    Raises:
        UsageError: an answer has no tokens.
    """
    stats = token_stats(lm, encoded, moments=False, batch_size=batch_size)
    return np.exp(np.array([answer.logps.mean() for answer in stats]))
