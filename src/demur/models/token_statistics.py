"""Everything that token-wise metrics need of a set of answers, from one pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from demur.data.batch import Encoded
from demur.models.head import Head
from demur.models.prefixes import answer_states
from demur.models.scored import checked_head

if TYPE_CHECKING:
    from demur.models.language_model import LanguageModel

__all__ = ["TokenStats", "token_stats"]


@dataclass(frozen=True)
class TokenStats:
    """One answer under a model, a number a label token (the end-of-text token last).

    Attributes:
        id: the row it came from.
        token_ids: (n,) the labels.
        logps: (n,) log p of each label, in nats.
        hits: (n,) whether the label is the likeliest token.
        mu: (n,) Σ_v p log p: the expected log-probability; nan where moments were not asked for.
        sigma2: (n,) Σ_v p (log p)² - mu²: its variance; nan likewise.
    """

    id: str
    token_ids: NDArray[np.int64]
    logps: NDArray[np.float64]
    hits: NDArray[np.bool_]
    mu: NDArray[np.float64]
    sigma2: NDArray[np.float64]


@torch.no_grad()
def token_stats(
    lm: LanguageModel,
    encoded: Sequence[Encoded],
    *,
    moments: bool | Sequence[bool] = True,
    batch_size: int = 32,
    share_prefixes: bool = True,
    progress: Callable[[int], Any] | None = None,
) -> list[TokenStats]:
    """Score answers token by token.

    Args:
        lm: the model; put in eval mode.
        encoded: prompts with their answers (see `encode`).
        moments: whether `mu` and `sigma2` are wanted, for all or for each.
        batch_size: answers in one forward pass.
        share_prefixes: read a prompt once for all its answers.
        progress: called with the number of answers done since the last call.

    Returns:
        One `TokenStats` an answer, in the order given.

    Raises:
        UsageError: an answer has no tokens; the message names the rows.
    """
    head = checked_head(lm.model)
    wanted = [moments] * len(encoded) if isinstance(moments, bool) else list(moments)
    out: list[TokenStats | None] = [None] * len(encoded)
    for indices, hidden in answer_states(lm, encoded, batch_size=batch_size, share_prefixes=share_prefixes):
        rows = [encoded[i] for i in indices]
        for i, stats in zip(indices, _statistics(head, hidden, rows, [wanted[i] for i in indices]), strict=True):
            out[i] = stats
        if progress is not None:
            progress(len(indices))
    return [s for s in out if s is not None]


def _statistics(head: Head, hidden: Tensor, rows: list[Encoded], moments: list[bool]) -> list[TokenStats]:
    counts = [len(r.input_ids) - r.first_label for r in rows]
    labels = torch.tensor([t for r, n in zip(rows, counts, strict=True) for t in r.input_ids[-n:]])
    labels = labels.to(hidden.device)
    wanted = torch.tensor(moments).repeat_interleave(torch.tensor(counts)).to(hidden.device)
    logps = torch.empty(len(labels), dtype=torch.float64)
    hits = torch.empty(len(labels), dtype=torch.bool)
    spread = torch.full((2, len(labels)), torch.nan, dtype=torch.float64)
    scratch = head.scratch(len(labels))
    for chunk in head.chunks(len(labels)):
        # Passes over the vocabulary are what this costs: one for the maximum, and one for exp and sum in its place.
        logits = head.logits(hidden[chunk], scratch)
        top = logits.amax(1, keepdim=True)
        chosen = logits.gather(1, labels[chunk, None])
        hits[chunk] = (chosen == top)[:, 0].cpu()
        some = wanted[chunk]
        centred = logits.sub_(top)
        kept = centred[some] if some.any() else None
        p = centred.exp_()
        total = p.sum(1)
        logps[chunk] = ((chosen - top)[:, 0] - total.log()).double().cpu()
        if kept is not None:
            share = p[some] / total[some, None]
            mean = torch.linalg.vecdot(share, kept)
            sigma2 = torch.linalg.vecdot(share, kept.square_()) - mean.square()
            positions = torch.arange(chunk.start, chunk.stop)[some.cpu()]
            spread[:, positions] = torch.stack([mean - total[some].log(), sigma2]).double().cpu()
    out, start = [], 0
    for row, n in zip(rows, counts, strict=True):
        part = slice(start, start + n)
        out.append(
            TokenStats(
                row.id,
                labels[part].cpu().numpy(),
                logps[part].numpy(),
                hits[part].numpy(),
                spread[0, part].numpy(),
                spread[1, part].numpy(),
            )
        )
        start += n
    return out
