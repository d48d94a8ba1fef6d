"""The paper's classifier of prompts: a small network on the model's own hidden state of the prompt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from demur.data.batch import Encoded, collate
from demur.models import decoder_layers, encode_prompts, record
from demur.models.activations import first_layers
from demur.models.head import capture_hidden
from demur.models.scored import forward_inputs, unwrapped

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from demur.data.rows import Prompt
    from demur.models import LanguageModel

__all__ = ["EPOCHS", "StateClassifier", "fit_states", "prompt_embeddings"]

WIDTH, DROPOUT, RATE, EPOCHS, BATCH = 256, 0.1, 1e-3, 50, 32


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


class StateClassifier(nn.Module):
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
    def log_odds(self, z: NDArray[np.float32]) -> NDArray[np.float64]:
        """(n,) log-odds that each prompt concerns the forget set."""
        self.eval()
        logits = self(torch.from_numpy(z)).double()
        return (logits[:, 1] - logits[:, 0]).numpy()

    @classmethod
    def restore(cls, weights: Mapping[str, Any]) -> StateClassifier:
        """The classifier with these weights (its `state_dict`)."""
        classifier = cls(len(weights["mean"]))
        classifier.load_state_dict(dict(weights))
        return classifier.eval()


def fit_states(
    z: NDArray[np.float32], labels: NDArray[np.int64], seed: int, told: Callable[[], Any] = lambda: None
) -> StateClassifier:
    """Fit the classifier: cross-entropy, both kinds weighing the same; AdamW, rate 1e-3, 50 epochs, batch 32.

    Args:
        z: (n, d) prompt embeddings.
        labels: (n,) 1 for prompts about the forget set, else 0.
        seed: of initial weights, order and dropout; the caller's random state is left alone.
        told: called after each epoch.
    """
    features, kinds = torch.from_numpy(z), torch.from_numpy(labels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        classifier = StateClassifier(z.shape[1])
        classifier.mean.copy_(features.mean(0))
        classifier.spread.copy_(features.std(0, correction=0).clamp(min=1e-6))
        weights = len(kinds) / (2 * torch.bincount(kinds, minlength=2)).clamp(min=1)
        optimizer = torch.optim.AdamW(classifier.parameters(), lr=RATE)
        for _ in range(EPOCHS):
            for rows in torch.randperm(len(features)).split(BATCH):
                optimizer.zero_grad()
                F.cross_entropy(classifier(features[rows]), kinds[rows], weight=weights).backward()
                optimizer.step()
            told()
    return classifier.eval()
