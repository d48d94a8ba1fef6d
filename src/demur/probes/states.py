"""Hidden states at the end of prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from demur.data.batch import Encoded, collate
from demur.models.activations import record
from demur.models.chat import encode_prompts
from demur.models.scored import forward_inputs, unwrapped

if TYPE_CHECKING:
    from demur.models import LanguageModel, Prompt

__all__ = ["prompt_states"]


@torch.no_grad()
def prompt_states(lm: LanguageModel, prompts: Sequence[Prompt], *, batch_size: int = 32) -> Tensor:
    """What each layer gives at the last token of each prompt, where the answer begins.

    Args:
        lm: the model; put in eval mode.
        prompts: what is asked.
        batch_size: prompts in one forward pass.

    Returns:
        (prompts, layers, hidden) float states on the CPU.
    """
    lm.model.eval()
    inner = unwrapped(lm.model)
    items = [Encoded(tokens, len(tokens)) for tokens in encode_prompts(lm, prompts)]
    parts = []
    for start in range(0, len(items), batch_size):
        batch = collate(items[start : start + batch_size], lm.pad_id).to(lm.device)
        with record(inner, positions=[-1], device="cpu") as states:
            lm.model(**forward_inputs(lm.model, batch), use_cache=False)
        parts.append(torch.stack([states[layer][:, 0].float() for layer in states], dim=1))
    return torch.cat(parts)
