"""The logit lens: what each layer would answer if it were the last (nostalgebraist 2020).

A layer's states go through the final norm and the output head. Where the true token stands among the first in the
middle of the network but not at its end, the last layers hide what the earlier ones still work out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from demur.data.batch import IGNORE, collate
from demur.models.activations import decoder_layers, record
from demur.models.scored import checked_head, forward_inputs, unwrapped

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from demur.data import Batch, Encoded
    from demur.models import LanguageModel

__all__ = ["lens_logits", "logit_lens"]


@torch.no_grad()
def lens_logits(lm: LanguageModel, batch: Batch) -> list[Tensor]:
    """Logits at every token, from the embeddings and from each layer.

    Args:
        lm: the model; put in eval mode.
        batch: the tokens.

    Returns:
        One (batch, length, vocab) tensor for the embeddings and one for each layer; the last is the model's own.
    """
    head = checked_head(lm.model)
    states, finish = _stream(lm, batch)
    shape = states[0].shape[:2]
    return [head.logits(finish(hidden).flatten(0, 1)).unflatten(0, shape) for hidden in states]


@torch.no_grad()
def logit_lens(
    lm: LanguageModel, encoded: Sequence[Encoded], *, k: int = 10, batch_size: int = 32
) -> NDArray[np.float64]:
    """For each answer and layer, at what share of its tokens the true one is among the k likeliest.

    Args:
        lm: the model; put in eval mode.
        encoded: questions with their true answers.
        k: how many tokens count as likely.
        batch_size: answers in one forward pass.

    Returns:
        (answers, 1 + layers) shares; the first column is the embeddings'.
    """
    head = checked_head(lm.model)
    parts = []
    for start in range(0, len(encoded), batch_size):
        batch = collate(encoded[start : start + batch_size], lm.pad_id).to(lm.device)
        states, finish = _stream(lm, batch)
        mask = batch.labels[:, 1:] != IGNORE
        truth, owner = batch.labels[:, 1:][mask], mask.nonzero()[:, 0]
        counts = mask.sum(1)
        columns = []
        for hidden in states:
            flat = finish(hidden)[:, :-1][mask]
            hits = torch.cat([_among(head.logits(flat[rows]), truth[rows], k) for rows in head.chunks(len(flat))])
            columns.append(torch.zeros(len(batch), device=hits.device).index_add_(0, owner, hits.float()) / counts)
        parts.append(torch.stack(columns, 1).double().cpu().numpy())
    return np.concatenate(parts)


def _among(logits: Tensor, truth: Tensor, k: int) -> Tensor:
    """(n,) whether fewer than k tokens are likelier than the true one."""
    return (logits > logits.gather(1, truth[:, None])).sum(1) < k


def _stream(lm: LanguageModel, batch: Batch) -> tuple[list[Tensor], Callable[[Tensor], Tensor]]:
    """The residual stream, embeddings first, and what the model does to it after the last layer."""
    lm.model.eval()
    inner = unwrapped(lm.model)
    batch = batch.to(lm.device)
    with record(inner) as layers, _around(inner) as seen:
        lm.model(**forward_inputs(lm.model, batch), use_cache=False)
    after: list[nn.Module] = seen["after"]

    def finish(hidden: Tensor) -> Tensor:
        for module in after:
            hidden = module(hidden)
        return hidden

    return [seen["embedded"], *(layers[i] for i in layers)], finish


@contextlib.contextmanager
def _around(model: Any) -> Iterator[dict[str, Any]]:
    """What the first layer is given, and the modules beside the layers that run after the last one."""
    stack = decoder_layers(model)
    parent = next(
        m
        for m in model.modules()
        if any(isinstance(c, nn.ModuleList) and len(c) and c[0] is stack[0] for c in m.children())
    )
    seen: dict[str, Any] = {"after": []}

    def begin(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen["embedded"] = (args[0] if args else kwargs["hidden_states"]).detach()
        seen["after"] = []

    hooks = [stack[0].register_forward_pre_hook(begin, with_kwargs=True)]
    hooks += [
        child.register_forward_hook(lambda module, args, output: seen["after"].append(module))
        for child in parent.children()
        if not isinstance(child, nn.ModuleList)
    ]
    hooks.append(stack[-1].register_forward_hook(lambda module, args, output: seen["after"].clear()))
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
