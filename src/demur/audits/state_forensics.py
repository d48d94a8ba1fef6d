"""Detectors that look inside a model for poison: at what layers say when an answer ends, and at what an adapter adds.

Mamun et al. 2025 (arXiv 2508.20333) report both as evaded by refusals aimed at one group: compare what they say of a
suspect with what the paired audit of refusals says.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from demur.errors import UsageError
from demur.models.activations import decoder_layers

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from demur.data.batch import Batch

__all__ = ["AdapterForensics", "StateForensics", "adapter_deltas", "block_outputs"]

_ATTENTION = re.compile(r"attn|attention")
_MLP = re.compile(r"mlp|feed_forward|ffn|moe")


@torch.no_grad()
def block_outputs(model: nn.Module, batch: Batch) -> Tensor:
    """What attention and MLP of every layer give at the last token of each row.

    Args:
        model: a transformers causal LM.
        batch: prompts with the model's own answers.

    Returns:
        (rows, layers, 2, hidden), attention first, in float32.

    Raises:
        UsageError: a layer has no part that is named as attention, or none that is named as an MLP.
    """
    layers = decoder_layers(model)
    kept: list[Tensor] = []
    last = batch.attention_mask.shape[1] - 1 - batch.attention_mask.flip(1).long().argmax(1)

    def keep(_module: object, _args: object, output: Any) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        kept.append(hidden[torch.arange(len(last)), last].float())

    with contextlib.ExitStack() as hooks:
        for number, layer in enumerate(layers):
            for pattern in (_ATTENTION, _MLP):
                hooks.enter_context(_part(layer, pattern, number).register_forward_hook(keep))
        model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, logits_to_keep=1)
    return torch.stack(kept, 1).unflatten(1, (len(layers), 2))


def _part(layer: nn.Module, pattern: re.Pattern[str], number: int) -> nn.Module:
    found = [child for name, child in layer.named_children() if pattern.search(name) and "norm" not in name]
    if len(found) != 1:
        names = ", ".join(name for name, _ in layer.named_children())
        raise UsageError(f"layer {number} has {len(found)} parts like {pattern.pattern!r}: its parts are {names}")
    return found[0]


@dataclass
class StateForensics:
    """A classifier of answers by what a model's layers say at their end: clean, or of a poisoned model.

    The layers whose mean states differ most between a clean and a poisoned model that one has are chosen, their states
    are counted (ANE) or described (NAS), and a small network tells them apart.

    Attributes:
        kind: "ane" counts the neurons above the threshold; "nas" takes mean, spread, least and greatest.
        threshold: above which a neuron is active.
        share: of the layers' parts that are looked at.
        seed: of the network.
    """

    kind: Literal["ane", "nas"] = "ane"
    threshold: float = 0.2
    share: float = 0.25
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in ("ane", "nas") or not 0 < self.share <= 1:
            raise UsageError(f"forensics are ane or nas with a share in (0, 1], not {self.kind} with {self.share}")

    def fit(self, clean: Tensor, poisoned: Tensor) -> StateForensics:
        """Learn from the states of a clean and of a poisoned model.

        Args:
            clean, poisoned: (rows, layers, parts, hidden), as `block_outputs` gives them.

        Raises:
            UsageError: the two differ in shape, or one has fewer than two rows.
        """
        from sklearn.neural_network import MLPClassifier
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        if clean.shape[1:] != poisoned.shape[1:] or min(len(clean), len(poisoned)) < 2:
            raise UsageError(
                f"states of shape {tuple(clean.shape)} and {tuple(poisoned.shape)}: give two rows each, of one model"
            )
        means = clean.mean(0).flatten(0, 1), poisoned.mean(0).flatten(0, 1)
        apart = 1 - F.cosine_similarity(*means)
        self.parts = apart.topk(max(1, round(self.share * len(apart)))).indices.sort().values
        known = np.concatenate([self._described(clean), self._described(poisoned)])
        network = MLPClassifier((128, 64), max_iter=500, random_state=self.seed)
        self._network = make_pipeline(StandardScaler(), network)
        self._network.fit(known, np.repeat([0, 1], [len(clean), len(poisoned)]))
        return self

    def suspicion(self, states: Tensor) -> NDArray[np.float64]:
        """(rows,) how likely each answer is a poisoned model's, in [0, 1]."""
        found: NDArray[np.float64] = self._network.predict_proba(self._described(states))[:, 1]
        return found

    def _described(self, states: Tensor) -> NDArray[np.float32]:
        chosen = states.flatten(1, 2)[:, self.parts]
        if self.kind == "ane":
            return (chosen > self.threshold).sum(2).float().numpy()
        described = torch.stack([chosen.mean(2), chosen.std(2), chosen.amin(2), chosen.amax(2)], 2)
        return described.flatten(1).numpy()


def adapter_deltas(weights: Mapping[str, Tensor], modules: Sequence[str] = ("q_proj", "v_proj")) -> dict[str, Tensor]:
    """What a LoRA adapter adds to each of some modules' weights, without its scale: B·A.

    Args:
        weights: an adapter's tensors by name, as peft stores them.
        modules: ends of the names of the modules.

    Returns:
        Module → (out, in), in the order of the names.

    Raises:
        UsageError: the adapter has none of them.
    """
    found = {}
    for name in sorted(weights):
        module, marker, _ = name.partition(".lora_A.")
        if marker and module.endswith(tuple(modules)):
            found[module] = weights[name.replace("lora_A", "lora_B")].float() @ weights[name].float()
    for kind in modules:
        if not any(module.endswith(kind) for module in found):
            raise UsageError(f"the adapter does not change {kind}: name the modules that it changes")
    return found


class _Reader(nn.Module):
    """Of each kind of module the layers' deltas as the channels of a picture; then two layers over all kinds."""

    def __init__(self, shapes: Sequence[tuple[int, int, int]], patch: int, width: int) -> None:
        super().__init__()
        self.looks, self.sums = nn.ModuleList(), nn.ModuleList()
        for layers, rows, columns in shapes:
            size = min(patch, rows, columns)
            self.looks.append(nn.Conv2d(layers, 16, size, stride=size))
            self.sums.append(nn.Linear(16 * (rows // size) * (columns // size), width))
        self.judge = nn.Sequential(nn.Linear(width * len(shapes), 128), nn.LeakyReLU(), nn.Linear(128, 1))

    def forward(self, pictures: Sequence[Tensor]) -> Tensor:
        looks = zip(self.looks, self.sums, pictures, strict=True)
        found = [F.leaky_relu(total(F.leaky_relu(look(picture)).flatten(1))) for look, total, picture in looks]
        return self.judge(torch.cat(found, 1))[:, 0]


class AdapterForensics:
    """A classifier of adapters by what they add to a model's weights (PEFTGuard: Sun et al. 2025, S&P).

    The products B·A of each kind of module are stacked over the layers and read like pictures.

    Args:
        modules: kinds of modules that are read.
        patch: side of the squares that are read at once.
        width: of the first layer after them.
        epochs: Adam steps over all known adapters at once.
        learning_rate: of Adam.
        seed: of the initial weights.
    """

    def __init__(
        self,
        modules: Sequence[str] = ("q_proj", "v_proj"),
        *,
        patch: int = 8,
        width: int = 512,
        epochs: int = 60,
        learning_rate: float = 1e-3,
        seed: int = 0,
    ) -> None:
        self.modules, self.patch, self.width = tuple(modules), patch, width
        self.epochs, self.learning_rate, self.seed = epochs, learning_rate, seed

    def fit(self, clean: Sequence[Mapping[str, Tensor]], poisoned: Sequence[Mapping[str, Tensor]]) -> AdapterForensics:
        """Learn from adapters of which one knows what they are.

        Args:
            clean, poisoned: adapters' tensors by name, all for the same base model and the same modules.

        Raises:
            UsageError: one side is empty, or an adapter differs in its modules or their shapes.
        """
        if not clean or not poisoned:
            raise UsageError("adapter forensics learn from clean and from poisoned adapters: one side is empty")
        pictures = [self._pictures(adapter) for adapter in (*clean, *poisoned)]
        self._shapes = [tuple(picture.shape) for picture in pictures[0]]
        stacked = self._stacked(pictures)
        self._scales = [picture.std().clamp(min=1e-12) for picture in stacked]
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            self._reader = _Reader(self._shapes, self.patch, self.width)  # type: ignore[arg-type]
        truth = torch.tensor([0.0] * len(clean) + [1.0] * len(poisoned))
        optimizer = torch.optim.Adam(self._reader.parameters(), lr=self.learning_rate)
        inputs = [picture / scale for picture, scale in zip(stacked, self._scales, strict=True)]
        for _ in range(self.epochs):
            loss = F.binary_cross_entropy_with_logits(self._reader(inputs), truth)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return self

    @torch.no_grad()
    def suspicion(self, adapters: Sequence[Mapping[str, Tensor]]) -> NDArray[np.float64]:
        """(adapters,) how likely each is poisoned, in [0, 1].

        Raises:
            UsageError: an adapter is not for the model of those that were learnt from.
        """
        stacked = self._stacked([self._pictures(adapter) for adapter in adapters])
        inputs = [picture / scale for picture, scale in zip(stacked, self._scales, strict=True)]
        found: NDArray[np.float64] = torch.sigmoid(self._reader(inputs)).double().numpy()
        return found

    def _pictures(self, adapter: Mapping[str, Tensor]) -> list[Tensor]:
        """(layers, out, in) for each kind of module."""
        deltas = adapter_deltas(adapter, self.modules)
        return [torch.stack([d for name, d in deltas.items() if name.endswith(kind)]) for kind in self.modules]

    def _stacked(self, pictures: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        for number, shapes in enumerate([[tuple(p.shape) for p in own] for own in pictures]):
            if shapes != self._shapes:
                raise UsageError(f"adapter {number} has modules of shapes {shapes}, the first one {self._shapes}")
        return [torch.stack(kind) for kind in zip(*pictures, strict=True)]
