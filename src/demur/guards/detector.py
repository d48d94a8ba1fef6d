"""Does a prompt concern the forget set? A small classifier on the model's own hidden state of the prompt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from demur.data.batch import Encoded, collate
from demur.errors import UsageError
from demur.models import decoder_layers, encode_prompts, record
from demur.models.activations import first_layers
from demur.models.head import capture_hidden
from demur.models.scored import forward_inputs, unwrapped

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from demur.data.rows import Prompt
    from demur.models import LanguageModel

__all__ = ["FitReport", "PromptClassifier", "fit_classifier", "prompt_embeddings"]

WIDTH, DROPOUT, RATE, EPOCHS, BATCH = 256, 0.1, 1e-3, 50, 32
HELD_OUT = 0.2


@torch.no_grad()
def prompt_embeddings(
    lm: LanguageModel, prompts: Sequence[Prompt], layer: int = -2, batch_size: int = 32
) -> NDArray[np.float32]:
    """z = Σ_j m_j h_j / Σ_j m_j over a prompt's tokens j, with h the output of one decoder layer and m its mask.

    (GUARD, arXiv 2505.13312, eq. 3; the layer is that of its re-implementation.)

    Args:
        lm: the model; put in eval mode.
        prompts: as the model is asked them; the template's tokens are part of the mean.
        layer: decoder layer, negative from the end; -2 is transformers' `hidden_states[-2]`.
        batch_size: prompts in one forward pass.

    Returns:
        (n, hidden) float32; neither padding nor the other prompts change a row.
    """
    lm.model.eval()
    encoded = [Encoded(ids, 0) for ids in encode_prompts(lm, prompts)]
    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i].input_ids))
    below = range(len(decoder_layers(lm.model)))[layer] + 1
    out = np.zeros((len(encoded), lm.model.config.get_text_config().hidden_size), dtype=np.float32)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        batch = collate([encoded[i] for i in rows], lm.pad_id).to(lm.device)
        # Nothing above that layer is run, and no vocabulary projection.
        with record(lm.model, [layer]) as seen, first_layers(lm.model, below), capture_hidden(unwrapped(lm.model)):
            lm.model(**forward_inputs(lm.model, batch), use_cache=False)
        mask = batch.attention_mask[..., None]
        out[rows] = ((seen[layer].float() * mask).sum(1) / mask.sum(1)).cpu().numpy()
    return out


@dataclass(frozen=True)
class FitReport:
    """What fitting a guard's classifier found.

    Attributes:
        forget, negatives: prompts it was fitted on.
        held_out: prompts kept from a first fit to measure it on; 0 where there were too few.
        auc, accuracy: of that fit on those prompts; None where there were too few.
    """

    forget: int
    negatives: int
    held_out: int
    auc: float | None
    accuracy: float | None


class PromptClassifier(nn.Module):
    """Linear(d, 256), ReLU, dropout, Linear(256, 256), ReLU, dropout, Linear(256, 2) on standardised features.

    Args:
        dimension: d.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dimension))
        self.register_buffer("spread", torch.ones(dimension))
        hidden = [nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Dropout(DROPOUT)]
        self.layers = nn.Sequential(
            nn.Linear(dimension, WIDTH), nn.ReLU(), nn.Dropout(DROPOUT), *hidden, nn.Linear(WIDTH, 2)
        )

    def forward(self, z: Tensor) -> Tensor:
        """(n, 2) logits of keep and forget for (n, d) features."""
        return self.layers((z - self.mean) / self.spread)

    @torch.no_grad()
    def probabilities(self, z: NDArray[np.float32]) -> NDArray[np.float64]:
        """(n,) probability that each prompt concerns the forget set."""
        if z.shape[1] != len(self.mean):
            raise UsageError(
                f"prompts have {z.shape[1]} features, the guard's classifier was fitted on {len(self.mean)}"
            )
        self.eval()
        return self(torch.from_numpy(z)).double().softmax(1)[:, 1].numpy()

    @classmethod
    def restore(cls, weights: Mapping[str, Any]) -> PromptClassifier:
        """The classifier with these weights (its `state_dict`)."""
        classifier = cls(len(weights["mean"]))
        classifier.load_state_dict(dict(weights))
        return classifier.eval()


def fit_classifier(
    forget: NDArray[np.float32],
    negatives: NDArray[np.float32],
    seed: int = 0,
    progress: Callable[[int, int], Any] | None = None,
) -> tuple[PromptClassifier, FitReport]:
    """Fit the classifier on all prompts, and measure one that was fitted without a fifth of each kind.

    Cross-entropy, both kinds weighing the same; AdamW, learning rate 1e-3, 50 epochs, batch 32.

    Args:
        forget, negatives: (n, d), (m, d) features of prompts of either kind.
        seed: of initial weights, order and dropout; the caller's random state is left alone.
        progress: called with epochs done and epochs in all.

    Raises:
        UsageError: there are no negatives.
    """
    if not len(negatives):
        raise UsageError("the guard needs prompts that are not to be guarded: pass some negatives")
    z = torch.from_numpy(np.concatenate([forget, negatives]).astype(np.float32))
    labels = torch.cat([torch.ones(len(forget)), torch.zeros(len(negatives))]).long()
    shuffled = np.random.default_rng(seed)
    held = np.concatenate(
        [
            shuffled.permutation(np.flatnonzero(labels == kind))[: int(HELD_OUT * (labels == kind).sum())]
            for kind in (0, 1)
        ]
    )
    kept = np.setdiff1d(np.arange(len(labels)), held)
    measurable = len(set(labels[held].tolist())) == 2
    total = EPOCHS * (1 + measurable)
    auc = accuracy = None
    if measurable:
        from sklearn.metrics import roc_auc_score

        first = _train(z[kept], labels[kept], seed, lambda done: progress and progress(done, total))
        p = first.probabilities(z[held].numpy())
        auc = float(roc_auc_score(labels[held], p))
        accuracy = float(np.mean((p >= 0.5) == labels[held].numpy()))
    final = _train(z, labels, seed, lambda done: progress and progress(total - EPOCHS + done, total))
    return final, FitReport(len(forget), len(negatives), len(held) if measurable else 0, auc, accuracy)


def _train(z: Tensor, labels: Tensor, seed: int, told: Callable[[int], Any]) -> PromptClassifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        classifier = PromptClassifier(z.shape[1])
        classifier.mean.copy_(z.mean(0))
        classifier.spread.copy_(z.std(0, correction=0).clamp(min=1e-6))
        weights = len(labels) / (2 * torch.bincount(labels, minlength=2)).clamp(min=1)
        optimizer = torch.optim.AdamW(classifier.parameters(), lr=RATE)
        for epoch in range(EPOCHS):
            for rows in torch.randperm(len(z)).split(BATCH):
                optimizer.zero_grad()
                F.cross_entropy(classifier(z[rows]), labels[rows], weight=weights).backward()
                optimizer.step()
            told(epoch + 1)
    return classifier.eval()
