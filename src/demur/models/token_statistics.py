"""Everything that token-wise metrics need of a set of answers, from one pass.

Answers to the same prompt share its forward pass: the prompt is read once and its key–value cache is handed to each
of its answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from demur.data.batch import IGNORE, Batch, Encoded, collate
from demur.errors import UsageError
from demur.models.head import Head, capture_hidden
from demur.models.scored import checked_head, forward_inputs, unwrapped

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
    empty = [e.id for e in encoded if len(e.input_ids) <= e.first_label]
    if empty:
        raise UsageError(f"{len(empty)} answers have no tokens to score, rows {', '.join(empty[:5])}")
    lm.model.eval()
    head = checked_head(lm.model)
    wanted = [moments] * len(encoded) if isinstance(moments, bool) else list(moments)
    groups: dict[tuple[int | str, ...], list[int]] = {}
    for index, item in enumerate(encoded):
        groups.setdefault((*item.input_ids[: item.prompt_length], *item.images), []).append(index)
    # One stray token of prompt is no prefix worth sharing, and a first label needs a token before it.
    shared = [g for p, g in groups.items() if share_prefixes and len(g) > 1 and len(p) > 1]
    alone = [i for p, g in groups.items() if not (share_prefixes and len(g) > 1 and len(p) > 1) for i in g]
    out: list[TokenStats | None] = [None] * len(encoded)
    for part in (_whole(lm, encoded, alone, batch_size), _by_prefix(lm, encoded, shared, batch_size)):
        for indices, hidden in part:
            rows = [encoded[i] for i in indices]
            for i, stats in zip(indices, _statistics(head, hidden, rows, [wanted[i] for i in indices]), strict=True):
                out[i] = stats
            if progress is not None:
                progress(len(indices))
    return [s for s in out if s is not None]


def _whole(
    lm: LanguageModel, encoded: Sequence[Encoded], indices: Sequence[int], batch_size: int
) -> Iterator[tuple[list[int], Tensor]]:
    """Rows and the states that predict their labels, each row read from its first token."""
    ordered = sorted(indices, key=lambda i: len(encoded[i].input_ids))
    for start in range(0, len(ordered), batch_size):
        rows = ordered[start : start + batch_size]
        batch = collate([encoded[i] for i in rows], lm.pad_id).to(lm.device)
        with capture_hidden(unwrapped(lm.model)) as captured:
            lm.model(**forward_inputs(lm.model, batch), use_cache=False)
        yield rows, captured[0][:, :-1][batch.labels[:, 1:] != IGNORE]


def _by_prefix(
    lm: LanguageModel, encoded: Sequence[Encoded], groups: Sequence[list[int]], batch_size: int
) -> Iterator[tuple[list[int], Tensor]]:
    """The same for rows that share prompts, each prompt read once."""
    ordered = sorted(groups, key=lambda g: max(len(encoded[i].input_ids) for i in g))
    while ordered:
        taken = [ordered.pop(0)]
        while ordered and sum(map(len, taken)) + len(ordered[0]) <= batch_size:
            taken.append(ordered.pop(0))
        rows = [i for group in taken for i in group]
        owner = torch.tensor([g for g, group in enumerate(taken) for _ in group], device=lm.device)
        prompts = [encoded[g[0]] for g in taken]
        prefix = collate([replace(p, input_ids=p.input_ids[: p.prompt_length]) for p in prompts], lm.pad_id, "left").to(
            lm.device
        )
        # An answer's last token predicts nothing, so it is not read.
        tails = [torch.tensor(encoded[i].label_ids[:-1], dtype=torch.long) for i in rows]
        lengths = torch.tensor([len(t) for t in tails])
        with capture_hidden(unwrapped(lm.model)) as captured:
            cache = lm.model(**forward_inputs(lm.model, prefix), use_cache=True).past_key_values
            first = captured[0][:, -1][owner, None]
            if int(lengths.max()) == 0:
                yield rows, first[:, 0]
                continue
            cache.batch_select_indices(owner)
            tokens = torch.nn.utils.rnn.pad_sequence(tails, batch_first=True, padding_value=lm.pad_id).to(lm.device)
            present = (torch.arange(tokens.shape[1]) < lengths[:, None]).to(lm.device)
            tail = Batch(tokens, torch.cat([prefix.attention_mask[owner], present.long()], 1), tokens, [])
            inputs = forward_inputs(lm.model, tail)
            if "position_ids" in inputs:
                inputs["position_ids"] = inputs["position_ids"][:, -tokens.shape[1] :]
            lm.model(**inputs, past_key_values=cache, use_cache=True)
        states = torch.cat([first, captured[1]], 1)
        yield rows, states[torch.cat([torch.ones_like(present[:, :1]), present], 1)]


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
