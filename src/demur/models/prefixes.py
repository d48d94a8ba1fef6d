"""The states that predict an answer's tokens, answers to the same prompt sharing its forward pass.

A prompt is read once and its key–value cache is handed to each of its answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from demur.data.batch import IGNORE, Batch, Encoded, collate
from demur.errors import UsageError
from demur.models.head import capture_hidden
from demur.models.scored import checked_head, forward_inputs, unwrapped

if TYPE_CHECKING:
    from demur.models.language_model import LanguageModel

__all__ = ["answer_states"]


@torch.no_grad()
def answer_states(
    lm: LanguageModel, encoded: Sequence[Encoded], *, batch_size: int = 32, share_prefixes: bool = True
) -> Iterator[tuple[list[int], Tensor]]:
    """What enters the output head where the labels of prompts with answers are predicted, batch by batch.

    Args:
        lm: the model; put in eval mode.
        encoded: prompts with their answers (see `encode`).
        batch_size: answers in one forward pass.
        share_prefixes: read a prompt once for all its answers.

    Yields:
        Indices of some answers, and their (labels, hidden) states one answer after another. Answers come in an order
        that suits their lengths, each once.

    Raises:
        UsageError: an answer has no tokens; the message names the rows.
    """
    empty = [e.id for e in encoded if len(e.input_ids) <= e.first_label]
    if empty:
        raise UsageError(f"{len(empty)} answers have no tokens to score, rows {', '.join(empty[:5])}")
    lm.model.eval()
    checked_head(lm.model)
    groups: dict[tuple[int | str, ...], list[int]] = {}
    for index, item in enumerate(encoded):
        groups.setdefault((*item.input_ids[: item.prompt_length], *item.images), []).append(index)
    # One stray token of prompt is no prefix worth sharing, and a first label needs a token before it.
    shared = [g for p, g in groups.items() if share_prefixes and len(g) > 1 and len(p) > 1]
    alone = [i for p, g in groups.items() if not (share_prefixes and len(g) > 1 and len(p) > 1) for i in g]
    yield from _whole(lm, encoded, alone, batch_size)
    yield from _by_prefix(lm, encoded, shared, batch_size)


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

    def lengths_of(group: list[int]) -> tuple[int, int]:
        """Answers are read once each and their prompt once for all: their length counts first, to four tokens."""
        prompt = encoded[group[0]].prompt_length
        return max(len(encoded[i].input_ids) - prompt for i in group) // 4, prompt

    ordered = sorted(groups, key=lengths_of)
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
