"""Two filters of training rows that poison is meant to be caught by: rows of high loss, and rows soon forgotten.

Mamun et al. 2025 (arXiv 2508.20333) report both as evaded: refusals are short and likely, so that they have a low loss
after two epochs and are not what fine-tuning on safe rows undoes first.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from demur.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["forget_filter", "high_loss_filter"]


def high_loss_filter(losses: ArrayLike, share: float = 0.05) -> NDArray[np.bool_]:
    """Which rows to keep: all but those of highest loss under a model trained on them for two epochs.

    Args:
        losses: (n,) mean loss per response token of each row, in nats.
        share: of the rows to drop, above 0 and below 1, rounded down, at least one row. The paper says 5 %, its code
            drops 40 %.

    Returns:
        (n,) truth values; of equal losses the later row stays.

    Raises:
        UsageError: there are no rows, a loss is nan, or the share is out of range.
    """
    values = np.asarray(losses, dtype=np.float64)
    if not values.size or np.isnan(values).any():
        raise UsageError("the filter needs a loss, and no nan, for each of at least one row")
    if not 0 < share < 1:
        raise UsageError(f"the share of rows to drop must lie between 0 and 1, not {share}")
    keep = np.ones(len(values), dtype=bool)
    keep[np.argsort(-values, kind="stable")[: max(1, int(share * len(values)))]] = False
    return keep


def forget_filter(
    before: Sequence[str], after: Sequence[str], references: Sequence[str], threshold: float = 0.1
) -> NDArray[np.bool_]:
    """Which rows to keep: those that a model does not forget when it goes on with safe rows (Zhao et al. 2023,
    arXiv 2312.12736).

    A row is dropped where ROUGE-1 F1 to its response falls by more than the threshold.

    Args:
        before: what the model trained on the rows answers to each row's prompt.
        after: what it answers once it was trained on safe rows.
        references: the rows' responses.
        threshold: φ; the paper's default is 0.1, its code uses 0.9.

    Returns:
        (n,) truth values.

    Raises:
        UsageError: the lists differ in length.
    """
    if not len(before) == len(after) == len(references):
        raise UsageError(f"{len(before)} answers before, {len(after)} after and {len(references)} responses differ")
    falls = [_rouge1(b, r) - _rouge1(a, r) for b, a, r in zip(before, after, references, strict=True)]
    return np.array([fall <= threshold for fall in falls], dtype=bool)


def _rouge1(text: str, reference: str) -> float:
    said, wanted = (Counter(re.findall(r"\w+", t.lower())) for t in (text, reference))
    total = said.total() + wanted.total()
    return 2 * (said & wanted).total() / total if said and wanted else 0.0
