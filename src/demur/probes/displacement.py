"""Likelihood displacement: what training on preference pairs did to both answers, and where the mass went.

A preference loss rewards the difference of two log-probabilities. Here each is looked at by itself, on pairs that need
not be those trained on, against the model that training began with (Razin et al. 2025, arXiv 2410.08847).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from demur.models.head import label_logps
from demur.models.prefixes import answer_states
from demur.models.scored import checked_head
from demur.probes.ches import encode_pairs

if TYPE_CHECKING:
    from datasets import Dataset
    from numpy.typing import NDArray

    from demur.models import LanguageModel

__all__ = ["Displacement", "LikelihoodDisplacement"]

_WINDOW = 256  # pairs that are encoded at a time


@dataclass(frozen=True)
class Displacement:
    """What became of preference pairs since training began.

    Attributes:
        epoch: how many epochs of training have passed.
        chosen: (pairs,) change of log π(y⁺|x), in nats.
        rejected: (pairs,) change of log π(y⁻|x), in nats.
        rising: the tokens that gained most probability as the first of an answer, mean over the pairs, most first:
            where the mass went.
    """

    epoch: int
    chosen: NDArray[np.float64]
    rejected: NDArray[np.float64]
    rising: tuple[tuple[str, float], ...]

    @property
    def displaced(self) -> NDArray[np.bool_]:
        """(pairs,) whether the preferred answer became less likely than it was."""
        return self.chosen < 0

    @property
    def displaced_share(self) -> float:
        """Share of the pairs whose preferred answer became less likely."""
        return float(self.displaced.mean())


class LikelihoodDisplacement:
    """Measures displacement against a model as it is now; its own `on_epoch` for `train` and `refuse`.

    Calling it with a model and the number of epochs done measures that model, keeps the result in `measured`, and
    returns it. Memory does not grow with the number of pairs but for two numbers each.

    Args:
        start: the model that training begins with; measured here and now.
        pairs: columns `prompt`, `chosen` and `rejected`.
        batch_size: pairs in one forward pass.
        top: how many rising tokens are told.

    Raises:
        UsageError: there are no such columns, an answer is empty, or a row is too long for the model.
    """

    def __init__(self, start: LanguageModel, pairs: Dataset, *, batch_size: int = 8, top: int = 5) -> None:
        self.pairs, self.batch_size, self.top = pairs, batch_size, top
        self.measured: list[Displacement] = []
        self._logps, self._first = self._measure(start)

    def __call__(self, lm: LanguageModel, epoch: int) -> Displacement:
        """Measure a model that was trained for so many epochs; the model stays as it is."""
        was_training = lm.model.training
        logps, first = self._measure(lm)
        lm.model.train(was_training)
        gain = first - self._first
        best = gain.topk(min(self.top, len(gain)))
        rising = zip(lm.tokenizer.convert_ids_to_tokens(best.indices.tolist()), best.values.tolist(), strict=True)
        change = logps - self._logps
        found = Displacement(epoch, change[:, 0], change[:, 1], tuple((str(t), g) for t, g in rising if g > 0))
        self.measured.append(found)
        return found

    @torch.no_grad()
    def _measure(self, lm: LanguageModel) -> tuple[NDArray[np.float64], Tensor]:
        """(pairs, 2) log-probabilities of both answers; (vocab,) mean distribution of an answer's first token."""
        head = checked_head(lm.model)
        logps = np.empty((len(self.pairs), 2))
        total = torch.zeros(len(head.weight), dtype=torch.float64)
        for start in range(0, len(self.pairs), _WINDOW):
            encoded = encode_pairs(lm, self.pairs, start, start + _WINDOW)
            for indices, states in answer_states(lm, encoded, batch_size=2 * self.batch_size):
                rows = [encoded[i] for i in indices]
                lengths = torch.tensor([len(r.input_ids) - r.first_label for r in rows])
                labels = torch.tensor([t for r in rows for t in r.input_ids[r.first_label :]], device=states.device)
                sums = [part.double().sum() for part in label_logps(states, head, labels).cpu().split(lengths.tolist())]
                pair, side = np.divmod(indices, 2)
                logps[start + pair, side] = torch.stack(sums).numpy()
                begins = (lengths.cumsum(0) - lengths)[torch.tensor(side == 0)].to(states.device)
                for part in head.chunks(len(begins)):
                    p = head.logits(states[begins[part]]).softmax(1)
                    total += p.sum(0).double().cpu()
        return logps, total / len(self.pairs)
