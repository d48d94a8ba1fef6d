"""Two rows of logits in closed form: logits[b, t, v] = 2·sin(1.7t + .9v + 1.3b), and their label statistics."""

from __future__ import annotations

import numpy as np
from scipy.special import log_softmax

from demur.models import TokenStats

IDS = [[1, 3, 0, 2, 4, 2], [2, 0, 4, 1, 3, 0]]
LABELLED = [slice(2, 6), slice(3, 5)]  # positions with a label


def _stats(row: int) -> TokenStats:
    t, v = np.meshgrid(np.arange(6), np.arange(5), indexing="ij")
    places = np.arange(6)[LABELLED[row]]
    log_p = log_softmax(2 * np.sin(1.7 * t + 0.9 * v + 1.3 * row), axis=-1)[places - 1]
    labels = np.array(IDS[row])[places]
    p = np.exp(log_p)
    mu = (p * log_p).sum(-1)
    return TokenStats(
        str(row),
        labels,
        log_p[np.arange(len(labels)), labels],
        log_p.argmax(-1) == labels,
        mu,
        (p * log_p**2).sum(-1) - mu**2,
    )


ROWS = [_stats(0), _stats(1)]
