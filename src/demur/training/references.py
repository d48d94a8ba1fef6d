"""Scores of the frozen reference model: computed once, kept on disk, looked up by row."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from demur.data.batch import IGNORE, Batch, Encoded, collate
from demur.files import atomic_write, cache_dir, hash_file, hash_json, writable_cache
from demur.models.head import Head
from demur.models.language_model import LanguageModel
from demur.models.scored import StoredScores, score

__all__ = ["ReferenceScores", "score_reference"]


class ReferenceScores:
    """A reference model's scores of the rows of one role.

    Args:
        rows: (n,) ascending indices of the rows that were scored.
        offsets: (n + 1,) where each row's labels start.
        logps: (labels,) log-probabilities, in nats.
        hidden: (labels, hidden) final states, or None.
        head: the reference's vocabulary projection, kept with `hidden`.
        recorded: layer → (labels, hidden) outputs of that decoder layer at the labels.
    """

    def __init__(
        self,
        rows: NDArray[np.int64],
        offsets: Tensor,
        logps: Tensor,
        hidden: Tensor | None,
        head: Head | None,
        recorded: Mapping[int, Tensor],
    ) -> None:
        self._place = {int(row): i for i, row in enumerate(rows)}
        self.offsets, self.logps, self.hidden, self.head = offsets.tolist(), logps, hidden, head
        self.recorded = recorded

    def batch(self, rows: Sequence[int], batch: Batch) -> StoredScores:
        """The scores of a batch made of these rows."""
        spans = [slice(self.offsets[i], self.offsets[i + 1]) for i in (self._place[r] for r in rows)]
        mask = batch.labels != IGNORE
        flat = torch.cat([self.logps[s] for s in spans])
        token_logps = torch.zeros(mask.shape, dtype=flat.dtype).masked_scatter(mask, flat)
        hidden = None if self.hidden is None else torch.cat([self.hidden[s] for s in spans])
        recorded = {layer: torch.cat([states[s] for s in spans]) for layer, states in self.recorded.items()}
        return StoredScores(mask, token_logps, hidden, self.head, recorded)


@torch.no_grad()
def score_reference(
    lm: LanguageModel,
    table: Sequence[Encoded],
    rows: NDArray[np.int64],
    *,
    hidden: bool = False,
    layers: Sequence[int] = (),
    bf16: bool = False,
    batch_size: int = 16,
    weights_hash: str | None = None,
) -> ReferenceScores:
    """Score rows under the model as it is now, or read the scores that an earlier run left in the cache.

    Args:
        lm: the reference: the model before training, dropout off.
        table: a role's encoded rows.
        rows: ascending indices of those to score.
        hidden: keep final states too, which divergences need.
        layers: decoder layers whose outputs at the labels are kept too.
        bf16: compute as training will.
        batch_size: rows in one forward pass.
        weights_hash: of the model, where it is known already.

    Raises:
        UsageError: the cache cannot be written to.
    """
    wanted = [table[i] for i in rows]
    key = hash_json(
        {
            "weights": weights_hash or lm.weights_hash(),
            "tokens": [(e.input_ids, e.prompt_length, *(e.targets or ()), *map(hash_file, e.images)) for e in wanted],
            "bf16": bf16,
            "hidden": hidden,
            "layers": list(layers),
        }
    )
    file = cache_dir() / "references" / f"{key}.safetensors"
    if not file.is_file():
        writable_cache()
        _compute(lm, wanted, file, hidden, layers, bf16, batch_size)
    stored = load_file(file)
    head = Head.of(lm.model).detached() if hidden else None
    recorded = {layer: stored[f"layer {layer}"] for layer in layers}
    return ReferenceScores(rows, stored["offsets"], stored["logps"], stored.get("hidden"), head, recorded)


def _compute(
    lm: LanguageModel,
    wanted: Sequence[Encoded],
    file: Path,
    hidden: bool,
    layers: Sequence[int],
    bf16: bool,
    batch_size: int,
) -> None:
    lm.model.eval()
    counts = torch.tensor([e.label_count for e in wanted])
    offsets = torch.cat([torch.zeros(1, dtype=torch.long), counts.cumsum(0)])
    parts: dict[str, dict[int, Tensor]] = {}
    order = sorted(range(len(wanted)), key=lambda i: len(wanted[i].input_ids))
    autocast = torch.autocast(lm.device.type, torch.bfloat16) if bf16 else contextlib.nullcontext()
    for start in range(0, len(order), batch_size):
        indices = order[start : start + batch_size]
        with autocast:  # as in training, around the forward pass and not around the projection
            scored = score(lm.model, collate([wanted[i] for i in indices], lm.pad_id), layers=layers)
        flat = {"logps": scored.token_logps[scored.mask]}
        if hidden:
            flat["hidden"] = scored.final_hidden
        flat |= {f"layer {layer}": scored.label_states(layer) for layer in layers}
        for name, values in flat.items():
            split = values.cpu().split(counts[indices].tolist())
            parts.setdefault(name, {}).update(zip(indices, split, strict=True))
    tensors = {name: torch.cat([rows[i] for i in range(len(wanted))]) for name, rows in parts.items()}
    tensors["offsets"] = offsets
    with atomic_write(file) as temporary:
        save_file(tensors, temporary)
