"""The batch of which worked numbers are known: logits are 2 sin(frequency t + phase v + 1.3 b), in float64."""

from __future__ import annotations

import torch
from torch import Tensor

from demur.data.batch import IGNORE, Batch
from demur.models import Head
from demur.models.scored import Scored

_ = IGNORE
LABELS = [[_, _, 0, 2, 4, 2], [_, _, _, 1, 3, _]]


def logits(frequency: float, phase: float) -> Tensor:
    """(2, 6, 5)."""
    b, t, v = torch.meshgrid(torch.arange(2), torch.arange(6), torch.arange(5), indexing="ij")
    return 2 * torch.sin(frequency * t.double() + phase * v + 1.3 * b)


def worked(current: Tensor | None = None, *, unshifted: bool = False) -> Scored:
    """The batch under the worked model, with the worked reference.

    Args:
        current: other logits instead, (2, 6, 5).
        unshifted: each label is predicted from its own position instead of the one before.
    """
    labels = torch.tensor(LABELS)
    current, reference = logits(1.7, 0.9) if current is None else current, logits(1.1, 0.6)
    if unshifted:
        labels = torch.nn.functional.pad(labels, (1, 0), value=IGNORE)
        current, reference = (torch.nn.functional.pad(z, (0, 0, 0, 1)) for z in (current, reference))
    batch = Batch(labels.clamp(min=0), torch.ones_like(labels), labels, ["0", "1"])
    head = Head(torch.eye(5, dtype=torch.float64))  # with the identity for a head, hidden states are logits
    return Scored(batch, current, head, reference=Scored(batch, reference, head))
