"""Activation patching: put one model's states of a layer into another and see what it then knows.

Run the first layers of the model before unlearning and the last ones of the model after: where knowledge comes through,
the later layers still read it, and only the earlier ones were changed. The reverse tells how deep the change sits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from demur.data.batch import collate
from demur.errors import UsageError
from demur.models.activations import decoder_layers, edit, record
from demur.models.scored import checked_head, forward_inputs, score, unwrapped

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from demur.data import Encoded
    from demur.models import LanguageModel

__all__ = ["patch_states"]


@torch.no_grad()
def patch_states(
    source: LanguageModel, target: LanguageModel, encoded: Sequence[Encoded], *, batch_size: int = 32
) -> NDArray[np.float64]:
    """Probability of each true answer under `target` when one layer's output comes from `source`.

    Args:
        source: gives the states, at all tokens.
        target: goes on from them; of the same architecture, with the same tokenizer. Neither model is changed.
        encoded: questions with their true answers.
        batch_size: answers in one forward pass.

    Returns:
        (answers, layers) probabilities per token; with the last layer patched only final norm and head are target's.

    Raises:
        UsageError: the models differ in their number of layers.
    """
    depth = len(decoder_layers(source.model))
    if depth != len(decoder_layers(target.model)):
        raise UsageError("states can be patched only between models with the same number of layers")
    source.model.eval()
    target.model.eval()
    inner = unwrapped(target.model)
    checked_head(target.model)  # runs the model, which must not happen under the edit
    parts = []
    for start in range(0, len(encoded), batch_size):
        batch = collate(encoded[start : start + batch_size], target.pad_id).to(target.device)
        with record(unwrapped(source.model), device=target.device) as states:
            source.model(**forward_inputs(source.model, batch.to(source.device)), use_cache=False)
        columns = []
        for layer in range(depth):
            with edit(inner, [layer], lambda hidden, at: states[at]):
                columns.append(score(target.model, batch).mean_logps.exp().double().cpu())
        parts.append(torch.stack(columns, dim=1).numpy())
    return np.concatenate(parts)
