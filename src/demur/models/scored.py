"""A batch under a model, computed lazily from one forward pass."""

from __future__ import annotations

import contextlib
import functools
import inspect
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from demur.data.batch import IGNORE, Batch
from demur.errors import UsageError
from demur.models.activations import decoder_layers, first_layers, record
from demur.models.head import (
    Head,
    adjusted_cross_entropy,
    capture_hidden,
    label_logps,
    label_margins,
    logit_margins,
    reference_kl,
)

__all__ = ["Scored", "StoredScores", "checked_head", "forward_inputs", "joint_score", "score", "unwrapped"]


class _Sums:
    """What follows from the log-probabilities of labels, whoever computed them."""

    mask: Tensor
    token_logps: Tensor
    _token_total: float | None = None

    @functools.cached_property
    def lengths(self) -> Tensor:
        """(batch,) number of labels in each sequence."""
        return self.mask.sum(1)

    @functools.cached_property
    def logps(self) -> Tensor:
        """(batch,) summed label log-probability of each sequence, in nats."""
        return self.token_logps.sum(1)

    @functools.cached_property
    def mean_logps(self) -> Tensor:
        """(batch,) label log-probability per token, in nats."""
        return self.logps / self.lengths

    @functools.cached_property
    def nll(self) -> Tensor:
        """Scalar: negative log-likelihood, mean over all labels of the batch (of the accumulated batch in training)."""
        return -self.logps.sum() / self.token_total

    def token_mean(self, values: Tensor) -> Tensor:
        """Scalar: mean over all labels of a (batch, length) tensor (of the accumulated batch in training)."""
        return values.masked_fill(~self.mask, 0.0).sum() / self.token_total

    @property
    def token_total(self) -> float | Tensor:
        """What means over label tokens divide by."""
        return self.lengths.sum() if self._token_total is None else self._token_total


class StoredScores(_Sums):
    """A frozen reference's scores of a batch, from a cache.

    Args:
        mask: (batch, length) bool, the labels.
        token_logps: (batch, length) log-probabilities, 0 where there is no label.
        hidden: (labels, hidden) final states in row-major order of `mask`, needed for divergences only.
        head: the reference's vocabulary projection, needed for divergences only.
        recorded: (labels, hidden) outputs of single decoder layers at the labels, where they were recorded.
    """

    def __init__(
        self,
        mask: Tensor,
        token_logps: Tensor,
        hidden: Tensor | None = None,
        head: Head | None = None,
        recorded: Mapping[int, Tensor] | None = None,
    ) -> None:
        self.mask, self.token_logps = mask, token_logps
        self.final_hidden, self.head = hidden, head
        self._recorded = recorded or {}

    def to(self, device: torch.device) -> StoredScores:
        """The same scores on another device; the head stays where it is, beside the model's."""
        hidden = None if self.final_hidden is None else self.final_hidden.to(device)
        recorded = {layer: states.to(device) for layer, states in self._recorded.items()}
        return StoredScores(self.mask.to(device), self.token_logps.to(device), hidden, self.head, recorded)

    def label_states(self, layer: int) -> Tensor:
        """(labels, hidden) output of one decoder layer at the labels, in row-major order of `mask`.

        Raises:
            UsageError: the layer was not stored.
        """
        if layer not in self._recorded:
            raise UsageError(f"layer {layer} of the reference was not stored: score it with layers=[{layer}]")
        return self._recorded[layer]

    @property
    def reference(self) -> StoredScores:
        """A reference has none of its own.

        Raises:
            UsageError: always.
        """
        raise UsageError("these scores belong to a reference model, which has no reference of its own")

    def kl(self, reference: StoredScores | Scored) -> Tensor:
        """Stored scores are constants: divergences are taken from the trained model's side.

        Raises:
            UsageError: always.
        """
        raise UsageError("these scores belong to a reference model: ask the trained model's scores for .kl(reference)")


class Scored(_Sums):
    """A batch under a model. Each quantity is computed when first asked for, from the one forward pass made before.

    Args:
        batch: the tokens.
        hidden: (batch, length, hidden) final states; None where the forward pass ended before them.
        head: the vocabulary projection.
        recorded: hidden states of single layers, where they were recorded.
        reference: the same batch under the frozen reference model.
    """

    def __init__(
        self,
        batch: Batch,
        hidden: Tensor | None,
        head: Head,
        recorded: Mapping[int, Tensor] | None = None,
        reference: StoredScores | Scored | None = None,
    ) -> None:
        self.batch, self.head = batch, head
        self.mask = batch.labels != IGNORE
        self.mask[:, 0] = False
        self._final_hidden = None if hidden is None else hidden[:, :-1][self.mask[:, 1:]]
        self._recorded = recorded or {}
        # Stored scores come from disk; computed ones already lie where the model does.
        self._reference = reference.to(self.mask.device) if isinstance(reference, StoredScores) else reference
        self._token_total = batch.token_total

    @property
    def final_hidden(self) -> Tensor:
        """(labels, hidden) final states at the positions that predict the labels, in row-major order of `mask`.

        Raises:
            UsageError: the forward pass ended at a decoder layer.
        """
        if self._final_hidden is None:
            raise UsageError("the forward pass ended at a decoder layer: score with logits=True")
        return self._final_hidden

    def _placed(self, flat: Tensor) -> Tensor:
        """(batch, length) from a number a label."""
        return torch.zeros(self.mask.shape, dtype=flat.dtype, device=flat.device).masked_scatter(self.mask, flat)

    @functools.cached_property
    def label_ids(self) -> Tensor:
        """(labels,) token ids in row-major order of `mask`."""
        return self.batch.labels[self.mask]

    @functools.cached_property
    def token_logps(self) -> Tensor:  # type: ignore[override]
        """(batch, length) log-probability of each label, in nats; 0 where there is none."""
        return self._placed(label_logps(self.final_hidden, self.head, self.label_ids))

    @functools.cached_property
    def margins(self) -> Tensor:
        """(batch, length) probability of each label less that of the likeliest other token; 0 where there is none."""
        return self._placed(label_margins(self.final_hidden, self.head, self.label_ids))

    @functools.cached_property
    def entropy(self) -> Tensor:
        """(batch, length) entropy of the distribution each label is drawn from, in nats, outside autograd."""
        parts = []
        for rows in self.head.chunks(len(self.final_hidden)):
            log_p = self.head.logits(self.final_hidden[rows]).log_softmax(1)
            parts.append(-(log_p.exp() * log_p).sum(1))
        return self._placed(torch.cat(parts))

    def top_k(self, k: int) -> tuple[Tensor, Tensor]:
        """The k likeliest tokens at each label, outside autograd.

        Returns:
            (labels, k) log-probabilities in nats and (labels, k) token ids, in row-major order of `mask`.
        """
        parts = [
            self.head.logits(self.final_hidden[rows]).log_softmax(1).topk(k)
            for rows in self.head.chunks(len(self.final_hidden))
        ]
        return torch.cat([p.values for p in parts]), torch.cat([p.indices for p in parts])

    def hidden(self, layer: int) -> Tensor:
        """(batch, length, hidden) output of one decoder layer.

        Raises:
            UsageError: the layer was not among `layers` when the batch was scored.
        """
        if layer not in self._recorded:
            raise UsageError(f"layer {layer} was not recorded: score with layers=[{layer}]")
        return self._recorded[layer]

    def label_states(self, layer: int) -> Tensor:
        """(labels, hidden) output of one decoder layer at the labels, in row-major order of `mask`.

        Raises:
            UsageError: as for `hidden`.
        """
        return self.hidden(layer)[self.mask]

    @functools.cached_property
    def logit_margins(self) -> Tensor:
        """(batch, length) largest logit less the mean of all, where a label is predicted; 0 where there is none."""
        return self._placed(logit_margins(self.final_hidden, self.head))

    def adjusted_cross_entropy(self, penalty: float, reference: StoredScores | Scored | None = None) -> Tensor:
        """(batch, length) cross entropy towards a distribution with the label's logit lowered, in nats; 0 elsewhere.

        Args:
            penalty: what the label's logit is lowered by; infinite takes the label out of the target.
            reference: whose logits the target is made of; None takes the model's own, as a constant.

        Raises:
            UsageError: the reference's final states were not stored.
        """
        states, head = (None, None) if reference is None else _distribution(reference)
        flat = adjusted_cross_entropy(self.final_hidden, self.head, self.label_ids, penalty, states, head)
        return self._placed(flat)

    @property
    def reference(self) -> StoredScores | Scored:
        """The same batch under the frozen reference model.

        Raises:
            UsageError: there is none.
        """
        if self._reference is None:
            raise UsageError("this objective needs a reference model, and none was given")
        return self._reference

    def kl(self, reference: StoredScores | Scored) -> Tensor:
        """Scalar: KL(reference ‖ model) of the next-token distributions, mean over all labels, in nats.

        Raises:
            UsageError: the reference's final states were not stored.
        """
        return reference_kl(self.final_hidden, self.head, *_distribution(reference)).sum() / self.token_total


def _distribution(reference: StoredScores | Scored) -> tuple[Tensor, Head]:
    """What a frozen reference's next-token distributions are made of: its final states and its head."""
    if reference.final_hidden is None or reference.head is None:
        raise UsageError("a divergence needs the reference's final states: store them with hidden=True")
    return reference.final_hidden.detach(), reference.head


def forward_inputs(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """What a forward pass takes: positions count real tokens only, so that left padding changes nothing."""
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    if "position_ids" in inspect.signature(type(unwrapped(model)).forward).parameters:
        inputs["position_ids"] = (batch.attention_mask.cumsum(1) - 1).clamp(min=0)
    if batch.pixels is not None:
        inputs["pixel_values"] = batch.pixels.to(unwrapped(model).dtype)
    return inputs


def unwrapped(model: Any) -> Any:
    """The transformers model inside peft's or a distributed wrapper."""
    model = getattr(model, "module", model)
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def score(
    model: nn.Module,
    batch: Batch,
    *,
    layers: Sequence[int] = (),
    reference: StoredScores | Scored | None = None,
    logits: bool = True,
) -> Scored:
    """Score a batch under a model with one forward pass.

    Args:
        model: a transformers causal LM, a peft wrapper, or a distributed wrapper of either.
        batch: the tokens; moved to the model's device.
        layers: decoder layers whose outputs are recorded for `Scored.hidden`.
        reference: the same batch under the reference model.
        logits: False ends the forward pass at the last of `layers`: nothing but their outputs can be asked for.

    Returns:
        A lazy view; gradients flow unless the call stands under `torch.no_grad`.

    Raises:
        UsageError: the architecture changes its logits in a way that the chunked projection does not know.
    """
    head = checked_head(model)
    batch = batch.to(head.weight.device)
    hidden, recorded = _forward(model, batch, layers, logits)
    return Scored(batch, hidden, head, recorded, reference)


def _forward(
    model: nn.Module, batch: Batch, layers: Sequence[int], logits: bool
) -> tuple[Tensor | None, dict[int, Tensor]]:
    """The final states (None without logits) and the outputs of the layers asked for."""
    inner = unwrapped(model)
    with contextlib.ExitStack() as stack:
        recorded = stack.enter_context(record(inner, layers, detach=False)) if layers else {}
        if not logits:
            count = len(decoder_layers(inner))
            stack.enter_context(first_layers(inner, 1 + max(layer % count for layer in layers)))
        captured = stack.enter_context(capture_hidden(inner))
        model(**forward_inputs(model, batch), use_cache=False)
    return captured[0] if logits else None, {layer: recorded[layer] for layer in layers}


def joint_score(
    model: nn.Module,
    batches: Mapping[str, Batch],
    references: Mapping[str, StoredScores | Scored],
    pad_id: int,
    *,
    layers: Sequence[int] = (),
    logits: bool = True,
) -> dict[str, Scored]:
    """Score several batches with one concatenated forward pass.

    Args:
        model: as for `score`.
        batches: by role.
        references: the reference's scores, by role; may lack roles.
        pad_id: token id to widen the shorter batches with.
        layers, logits: as for `score`.

    Returns:
        A lazy view of each batch, by role.
    """
    if len(batches) == 1:
        ((role, batch),) = batches.items()
        return {role: score(model, batch, layers=layers, reference=references.get(role), logits=logits)}
    head = checked_head(model)
    moved = {role: b.to(head.weight.device) for role, b in batches.items()}
    width = max(b.input_ids.shape[1] for b in moved.values())

    def widen(tensor: Tensor, value: int) -> Tensor:
        return nn.functional.pad(tensor, (0, width - tensor.shape[1]), value=value)

    whole = Batch(
        torch.cat([widen(b.input_ids, pad_id) for b in moved.values()]),
        torch.cat([widen(b.attention_mask, 0) for b in moved.values()]),
        torch.cat([widen(b.labels, IGNORE) for b in moved.values()]),
        [i for b in moved.values() for i in b.ids],
        pixels=_all_pixels(list(moved.values())),
    )
    hidden, recorded = _forward(model, whole, layers, logits)
    out, start = {}, 0
    for role, batch in moved.items():
        n, length = batch.input_ids.shape
        part = slice(start, start + n), slice(length)
        own = {layer: states[part] for layer, states in recorded.items()}
        out[role] = Scored(batch, None if hidden is None else hidden[part], head, own, references.get(role))
        start += n
    return out


def _all_pixels(batches: Sequence[Batch]) -> Tensor | None:
    found = [b.pixels for b in batches if b.pixels is not None]
    return torch.cat(found) if found else None


_checked: weakref.WeakSet[nn.Module] = weakref.WeakSet()


def checked_head(model: nn.Module) -> Head:
    """The model's vocabulary projection, checked once a model against the logits that the model itself gives.

    Raises:
        UsageError: the architecture changes its logits in a way that the chunked projection does not know.
    """
    model = unwrapped(model)
    head = Head.of(model)
    if model in _checked:
        return head
    tokens = torch.arange(3, device=head.weight.device)[None] % head.weight.shape[0]
    was_training = model.training
    model.eval()
    with torch.no_grad():
        inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "use_cache": False}
        expected = model(**inputs).logits[0].float()
        with capture_hidden(model) as captured:
            model(**inputs)
        found = head.logits(captured[0][0]).float()
    model.train(was_training)
    tolerance = 5e-2 if head.weight.dtype in (torch.bfloat16, torch.float16) else 1e-4
    # A model whose weights are already broken must still be measurable.
    if not torch.allclose(found, expected, atol=tolerance, rtol=tolerance, equal_nan=True):
        raise UsageError(
            f"{type(model).__name__} changes its logits after the output head in a way that demur does not know: "
            "it cannot be scored"
        )
    _checked.add(model)
    return head
