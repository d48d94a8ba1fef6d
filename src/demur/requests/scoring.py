"""The forget score of every request and the utility of a model: the same measure all along the sequence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from demur.requests.history import FORGET, UTILITY, Measure

if TYPE_CHECKING:
    from datasets import Dataset

    from demur.models import LanguageModel

__all__ = ["measured"]

_MOST = 400  # retain rows measured, evenly spread over all of them


def measured(
    lm: LanguageModel,
    forget: Mapping[int, Dataset],
    retain: Dataset | None,
    role: str = "run",
    chunk_length: int | None = None,
) -> list[Measure]:
    """The forget score of requests and the utility of a model.

    Both are the mean over rows of the length-normalised probability of the answer, with a bootstrap interval; of the
    rows to keep at most 400 are measured, evenly spread. Texts are measured in the pieces that they are trained in.

    Args:
        lm: the model.
        forget: request → its rows.
        retain: the rows to keep; None measures no utility.
        role: what the measures are said to be of.
        chunk_length: tokens in a piece of a text.
    """
    from demur.models import encode_rows, token_stats

    sets: dict[int | None, Dataset] = dict(forget.items())
    if retain is not None:
        spread = np.linspace(0, len(retain) - 1, min(_MOST, len(retain))).round().astype(int)
        sets[None] = retain.select(spread)
    encoded = {name: encode_rows(lm, rows, chunk_length) for name, rows in sets.items()}
    stats = iter(token_stats(lm, [row for rows in encoded.values() for row in rows], moments=False))
    out = []
    for name, rows in encoded.items():
        values = [math.exp(float(next(stats).logps.mean())) for _ in rows]
        out.append(_mean(FORGET if name is not None else UTILITY, name, values, role))
    return out


def _mean(metric: str, request: int | None, values: list[float], role: str) -> Measure:
    from demur.intervals import bootstrap_mean

    low, high = bootstrap_mean(values)
    ends = [None if math.isnan(end) else end for end in (low, high)]
    return Measure(metric, float(np.mean(values)), ends[0], ends[1], len(values), request, role)
