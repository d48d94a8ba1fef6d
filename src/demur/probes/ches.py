"""Which preference pairs will drag both answers down (Razin et al. 2025, arXiv 2410.08847).

A DPO-like loss raises only the difference log π(y⁺|x) − log π(y⁻|x); where the two answers look alike to the model,
what pushes y⁻ down takes y⁺ along. The centred hidden embedding similarity tells such pairs before any training:

    CHES(x, y⁺, y⁻) = ⟨S⁺, S⁻⟩ − ‖S⁺‖²,   S = Σ over an answer's tokens of the state that predicts the token

with states as they enter the output head. The higher, the more displacement is to be expected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from demur.errors import UsageError
from demur.models.chat import encode
from demur.models.prefixes import answer_states

if TYPE_CHECKING:
    from datasets import Dataset
    from numpy.typing import ArrayLike, NDArray

    from demur.data import Encoded
    from demur.models import LanguageModel

__all__ = [
    "ches_from_hidden",
    "ches_scores",
    "encode_pairs",
    "filter_preferences",
    "last_state_similarity",
    "single_token_drift",
]

_WINDOW = 64  # batches whose pairs are sorted by length together: all that is held of the data at one time

Report = Callable[[int, int], Any]


def ches_from_hidden(
    pref_hidden: Tensor, dispref_hidden: Tensor, pref_mask: Tensor, dispref_mask: Tensor, length_normalize: bool = False
) -> Tensor:
    """CHES from states at hand (definition 2 of the paper).

    Args:
        pref_hidden, dispref_hidden: (pairs, length, hidden) states that enter the output head; the lengths of the two
            may differ.
        pref_mask, dispref_mask: (pairs, length) True where a state predicts a token of the answer: from the last
            token of the prompt to the last but one of the sequence. Padding on either side is left out by it.
        length_normalize: divide each sum by its number of states, for long answers of uneven length.

    Returns:
        (pairs,) float32 scores, float64 for float64 states.

    Raises:
        UsageError: shapes do not belong together, or an answer has no state.
    """
    sums, counts = [], []
    for hidden, mask in ((pref_hidden, pref_mask), (dispref_hidden, dispref_mask)):
        if hidden.ndim != 3 or mask.shape != hidden.shape[:2]:
            raise UsageError(f"a mask of shape {tuple(mask.shape)} does not fit states of {tuple(hidden.shape)}")
        wide = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
        sums.append(wide.masked_fill(~mask.bool()[..., None], 0.0).sum(1))
        counts.append(mask.bool().sum(1))
    if len(pref_hidden) != len(dispref_hidden) or pref_hidden.shape[2] != dispref_hidden.shape[2]:
        raise UsageError(f"pairs differ: {tuple(pref_hidden.shape)} and {tuple(dispref_hidden.shape)}")
    if bool((torch.stack(counts) == 0).any()):
        raise UsageError("an answer has no state that predicts a token of it: its mask is empty")
    return _ches(sums[0], sums[1], counts[0], counts[1], length_normalize)


def _ches(won: Tensor, lost: Tensor, won_count: Tensor, lost_count: Tensor, length_normalize: bool) -> Tensor:
    if length_normalize:
        won, lost = won / won_count[:, None], lost / lost_count[:, None]
    # ⟨S⁺, S⁻ − S⁺⟩: the same as the difference of the two products, and exactly 0 for equal answers.
    return torch.linalg.vecdot(won, lost - won)


def ches_scores(
    lm: LanguageModel,
    dataset: Dataset,
    *,
    length_normalize: bool = False,
    batch_size: int = 8,
    progress: Report | None = None,
) -> NDArray[np.float64]:
    """CHES of every preference pair under a model: the one that training is to start from.

    Pairs are read a window at a time, so that memory does not grow with their number. The end-of-text token counts as
    the last of an answer, as it does in training; the two answers share the forward pass over their prompt.

    Args:
        lm: the model; put in eval mode.
        dataset: columns `prompt`, `chosen` and `rejected`.
        length_normalize: see `ches_from_hidden`.
        batch_size: pairs in one forward pass.
        progress: called with pairs done and pairs in all.

    Returns:
        (pairs,) scores in the order of the rows; the higher, the more both answers will fall in training.

    Raises:
        UsageError: a column is missing, an answer is empty, or a row is too long for the model.
    """
    out = np.empty(len(dataset))
    for rows, states in _pair_states(lm, dataset, batch_size, progress):
        won, lost = states.sums.double().cpu().unbind(1)
        counts = states.counts.double()
        out[rows] = _ches(won, lost, counts[:, 0], counts[:, 1], length_normalize).numpy()
    return out


def last_state_similarity(
    lm: LanguageModel, dataset: Dataset, *, batch_size: int = 8, progress: Report | None = None
) -> NDArray[np.float64]:
    """Inner product of the states at the ends of the two answers: a baseline that CHES is to beat.

    Args:
        lm, dataset, batch_size, progress: as for `ches_scores`.

    Returns:
        (pairs,) similarities in the order of the rows.

    Raises:
        UsageError: as for `ches_scores`.
    """
    out = np.empty(len(dataset))
    for rows, states in _pair_states(lm, dataset, batch_size, progress):
        out[rows] = torch.linalg.vecdot(*states.last.double().cpu().unbind(1)).numpy()
    return out


def filter_preferences(dataset: Dataset, scores: ArrayLike, keep: float | tuple[float, float]) -> Dataset:
    """The pairs with the lowest scores, or those between two quantiles, in their own order.

    Args:
        dataset: preference pairs.
        scores: (pairs,) for instance of `ches_scores`; of equal scores the earlier row counts as lower.
        keep: a share in (0, 1]; a whole number (int) of pairs; or two quantiles (low, high) between 0 and 1. A share is
            rounded to whole pairs, at least one; 1.0 is everything and 1 is one pair.

    Returns:
        The rows that are kept.

    Raises:
        UsageError: `keep` is none of these, or the scores are not one finite number a row.
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.shape != (len(dataset),) or not np.isfinite(values).all():
        raise UsageError(f"{len(dataset)} rows need as many finite scores, not an array of shape {values.shape}")
    order = np.argsort(values, kind="stable")
    n = len(order)
    if isinstance(keep, tuple):
        low, high = keep
        chosen = order[round(low * n) : round(high * n)] if 0 <= low < high <= 1 else order[:0]
        if not len(chosen):
            raise UsageError(f"no pair of {n} lies between the quantiles {low:g} and {high:g}: keep more of them")
    elif isinstance(keep, int) and not isinstance(keep, bool):
        if not 1 <= keep <= n:
            raise UsageError(f"{keep} of {n} pairs cannot be kept: keep at least 1 and at most {n}")
        chosen = order[:keep]
    else:
        if not 0 < keep <= 1:
            raise UsageError(f"a share of {keep:g} cannot be kept: it must lie above 0 and be at most 1")
        chosen = order[: max(1, round(keep * n))]
    return dataset.select(np.sort(chosen))


def single_token_drift(weight: Tensor, hidden: Tensor, chosen: int, rejected: int, beta: float = 0.1) -> Tensor:
    """How fast every token's log-probability moves when DPO starts on a pair of one-token answers.

    Under gradient flow, with the state h and the head W free to move (what theorems 1 and 2 of the paper rest on):

        d/dt log π(z) = −ℓ′ · [⟨W_z − Σ_v π_v W_v, W_y⁺ − W_y⁻⟩ + ‖h‖² (1[z=y⁺] − 1[z=y⁻] − π(y⁺) + π(y⁻))]

    with −ℓ′ = β/2 where the model is its own reference. The chosen token falls where its row of W is like the
    rejected one's or where probable tokens lie along their difference; what lies along it most gains most.

    Args:
        weight: (vocab, hidden) the head.
        hidden: (hidden,) the state that both tokens are predicted from.
        chosen, rejected: token ids.
        beta: DPO's inverse temperature.

    Returns:
        (vocab,) rates, in nats for each unit of the learning rate.

    Raises:
        UsageError: shapes do not belong together, or the two answers are the same token.
    """
    if weight.ndim != 2 or hidden.shape != weight.shape[1:]:
        raise UsageError(f"a head of shape {tuple(weight.shape)} does not fit a state of {tuple(hidden.shape)}")
    if chosen == rejected:
        raise UsageError(f"chosen and rejected are the same token, {chosen}")
    pi = (weight @ hidden).softmax(0)
    apart = weight[chosen] - weight[rejected]
    pull = torch.zeros_like(pi)
    pull[chosen], pull[rejected] = 1.0, -1.0
    return beta / 2 * ((weight - pi @ weight) @ apart + hidden.square().sum() * (pull - pi[chosen] + pi[rejected]))


class _PairStates(NamedTuple):
    """Of each pair, chosen before rejected: (pairs, 2, hidden) sums and last states, (pairs, 2) numbers of states."""

    sums: Tensor
    last: Tensor
    counts: Tensor


def encode_pairs(lm: LanguageModel, dataset: Dataset, start: int, stop: int) -> list[Encoded]:
    """Tokens of some preference pairs: each row's chosen and then its rejected answer.

    Args:
        lm: gives tokenizer, template and context length.
        dataset: columns `prompt`, `chosen` and `rejected`.
        start, stop: which rows.

    Raises:
        UsageError: a column is missing, an answer is empty, or a row is too long for the model.
    """
    missing = {"prompt", "chosen", "rejected"} - set(dataset.column_names)
    if missing:
        raise UsageError(f"preference pairs need the columns {', '.join(sorted(missing))}")
    part = dataset[start:stop]
    names = [str(i) for i in part.get("id", range(start, min(stop, len(dataset))))]
    for side in ("chosen", "rejected"):
        empty = next((i for i, text in zip(names, part[side], strict=True) if not text.strip()), None)
        if empty is not None:
            raise UsageError(f"row {empty!r}: the {side} answer is empty")
    # In one call, which renders and tokenises a prompt once for both answers.
    both = encode(lm, 2 * part["prompt"], part["chosen"] + part["rejected"], 2 * names)
    return [item for pair in zip(both[: len(names)], both[len(names) :], strict=True) for item in pair]


def _pair_states(
    lm: LanguageModel, dataset: Dataset, batch_size: int, progress: Report | None
) -> Iterator[tuple[Sequence[int], _PairStates]]:
    """Row numbers of some pairs, and their states, a window of the data at a time."""
    total = len(dataset)
    for start in range(0, total, _WINDOW * batch_size):
        stop = min(start + _WINDOW * batch_size, total)
        encoded = encode_pairs(lm, dataset, start, stop)
        counts = torch.tensor([len(e.input_ids) - e.first_label for e in encoded])
        found: list[tuple[Tensor, Tensor] | None] = [None] * len(encoded)
        for indices, states in answer_states(lm, encoded, batch_size=2 * batch_size):
            wide = states.to(torch.promote_types(states.dtype, torch.float32))
            lengths = counts[indices].to(wide.device)
            owner = torch.arange(len(indices), device=wide.device).repeat_interleave(lengths)
            sums = wide.new_zeros(len(indices), wide.shape[1]).index_add_(0, owner, wide)
            for place, item in enumerate(zip(sums, wide[lengths.cumsum(0) - 1], strict=True)):
                found[indices[place]] = item
            if progress is not None:
                progress(start + sum(f is not None for f in found) // 2, total)
        done = [f for f in found if f is not None]
        sums, last = (torch.stack(parts).unflatten(0, (-1, 2)) for parts in zip(*done, strict=True))
        yield range(start, stop), _PairStates(sums, last, counts.unflatten(0, (-1, 2)))
