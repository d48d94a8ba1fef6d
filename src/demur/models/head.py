"""The vocabulary projection, in chunks over the positions that need it and never as a (batch, length, vocab) tensor.

A quantity (log-probability of a label, divergence from a reference) is one number a position. Its gradient with
respect to the logits is formed while the chunk of logits is at hand and kept as long as a memory budget lasts; past
the budget, backward projects the chunk again. Either way each chunk needs one projection in forward and two products
in backward, where full logits need the same over every position, prompt and padding included.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from demur.errors import UsageError

__all__ = [
    "Head",
    "adjusted_cross_entropy",
    "capture_hidden",
    "label_logps",
    "label_margins",
    "logit_margins",
    "reference_kl",
]

CHUNK_BYTES = 64 * 2**20
"""Size of one chunk of float32 logits."""

KEEP_BYTES = 256 * 2**20
"""Logit gradients that a projection may keep for backward instead of forming them again."""


@dataclass(frozen=True)
class Head:
    """From a final hidden state to logits: soft(scale · (weight · h + bias)).

    Attributes:
        weight: (vocab, hidden).
        bias: (vocab,) or None.
        softcap: c of logits = c · tanh(logits / c), as Gemma 2 has it; None for none.
        scale: factor on the logits, as Cohere and Granite have it.
    """

    weight: Tensor
    bias: Tensor | None = None
    softcap: float | None = None
    scale: float = 1.0

    @classmethod
    def of(cls, model: nn.Module) -> Head:
        """The head of a transformers causal LM, or of a peft wrapper of one.

        Raises:
            UsageError: the model has no linear output head.
        """
        module = model.get_output_embeddings()  # type: ignore[operator]
        outer = module
        if hasattr(module, "token_adapter"):  # peft trains the rows of some tokens beside its adapters
            module = module.original_module
        if type(module) is not nn.Linear:
            kind = type(module).__name__
            raise UsageError(f"demur needs a plain linear output head, this model's is {kind}: adapt other modules")
        config: Any = model.config.get_text_config()  # type: ignore[union-attr, operator]
        scale = getattr(config, "logit_scale", None) or 1.0
        scale /= getattr(config, "logits_scaling", None) or 1.0
        on = outer is not module and not outer.token_adapter.disable_adapters
        weight = outer.weight if on else module.weight
        return cls(weight, module.bias, getattr(config, "final_logit_softcapping", None), float(scale))

    def detached(self) -> Head:
        """The same head as a frozen copy that later training leaves alone."""
        bias = None if self.bias is None else self.bias.detach().clone()
        return Head(self.weight.detach().clone(), bias, self.softcap, self.scale)

    def raw(self, hidden: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor | None = None) -> Tensor:
        """(n, vocab) float logits before the softcap; `weight` and `bias` are given for autograd's sake."""
        logits = torch.mm(hidden.to(weight.dtype), weight.T, out=out)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if bias is not None:
            logits += bias
        return logits.mul_(self.scale) if self.scale != 1.0 else logits

    def cap(self, logits: Tensor) -> Tensor:
        """Apply the softcap in place."""
        return logits if self.softcap is None else logits.div_(self.softcap).tanh_().mul_(self.softcap)

    def logits(self, hidden: Tensor, scratch: Tensor | None = None) -> Tensor:
        """(n, vocab) logits of (n, hidden) states, outside autograd.

        Args:
            hidden: final states.
            scratch: (at least n, vocab) memory of the head's type to write into, see `scratch`.
        """
        with torch.no_grad():
            out = None if scratch is None else scratch[: len(hidden)]
            return self.cap(self.raw(hidden, self.weight, self.bias, out))

    def scratch(self, n: int) -> Tensor:
        """Memory for the largest of `chunks(n)`: taken once, as new pages cost about as much as the product itself."""
        rows = max((c.stop - c.start for c in self.chunks(n)), default=0)
        return self.weight.new_empty((rows, self.weight.shape[0]))

    def chunks(self, n: int) -> list[slice]:
        """Slices of n positions whose logits fit in `CHUNK_BYTES`."""
        step = max(1, CHUNK_BYTES // (4 * self.weight.shape[0]))
        return [slice(i, min(i + step, n)) for i in range(0, n, step)]


# A quantity takes a chunk's logits (which it may overwrite) and which positions they are, and returns one value a
# position with the values' gradient with respect to the logits, or None when no gradient is asked for.
Quantity = Callable[[Tensor, slice, bool], tuple[Tensor, Tensor | None]]


class _Projection(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, head: Head, quantity: Quantity
    ) -> Tensor:
        ctx.save_for_backward(hidden, weight, bias)
        ctx.head, ctx.quantity = head, quantity
        needs_gradient = any(ctx.needs_input_grad[:3])
        budget = KEEP_BYTES
        ctx.kept = []
        values = []
        for rows in head.chunks(len(hidden)):
            value, slope = _evaluate(head, quantity, hidden, weight, bias, rows, needs_gradient and budget > 0)
            values.append(value)
            if slope is not None:
                budget -= slope.numel() * slope.element_size()
            ctx.kept.append(slope)
        return torch.cat(values) if values else hidden.new_zeros(0)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias = ctx.saved_tensors
        need_hidden, need_weight, need_bias = ctx.needs_input_grad[:3]
        d_hidden = torch.empty_like(hidden) if need_hidden else None
        d_weight = torch.zeros_like(weight) if need_weight else None
        d_bias = torch.zeros_like(bias) if bias is not None and need_bias else None
        for i, rows in enumerate(ctx.head.chunks(len(hidden))):
            # What was kept is used up in place and let go at once; a second backward forms it again.
            slope, ctx.kept[i] = ctx.kept[i], None
            if slope is None:
                _, slope = _evaluate(ctx.head, ctx.quantity, hidden, weight, bias, rows, True)
            d_logits = slope.mul_(gradient[rows, None])
            if d_bias is not None:
                d_bias += d_logits.sum(0)
            d_logits = d_logits.to(weight.dtype)
            if d_hidden is not None:
                d_hidden[rows] = (d_logits @ weight).to(hidden.dtype)
            if d_weight is not None:
                d_weight.addmm_(d_logits.T, hidden[rows].to(weight.dtype))
        return d_hidden, d_weight, d_bias, None, None


def _evaluate(
    head: Head, quantity: Quantity, hidden: Tensor, weight: Tensor, bias: Tensor | None, rows: slice, slope: bool
) -> tuple[Tensor, Tensor | None]:
    logits = head.cap(head.raw(hidden[rows], weight, bias))
    inner = None
    if slope and head.softcap is not None:
        inner = 1 - (logits / head.softcap).square()
    value, gradient = quantity(logits, rows, slope)
    if gradient is not None:
        if inner is not None:
            gradient *= inner
        if head.scale != 1.0:
            gradient *= head.scale
        gradient = gradient.to(weight.dtype)
    return value, gradient


def _project(hidden: Tensor, head: Head, quantity: Quantity) -> Tensor:
    weight, bias = head.weight, head.bias
    if torch.is_autocast_enabled(hidden.device.type):
        weight = weight.to(torch.get_autocast_dtype(hidden.device.type))
    return _Projection.apply(hidden, weight, bias, head, quantity)


def label_logps(hidden: Tensor, head: Head, labels: Tensor) -> Tensor:
    """Log-probability of each label, in nats.

    Args:
        hidden: (n, hidden) final states at the positions that predict the labels.
        head: the vocabulary projection.
        labels: (n,) token ids.

    Returns:
        (n,) float32 (or float64), differentiable in `hidden` and the head's weights.
    """

    def quantity(logits: Tensor, rows: slice, slope: bool) -> tuple[Tensor, Tensor | None]:
        target = labels[rows, None]
        chosen = logits.gather(1, target).squeeze(1)
        if not slope:
            return chosen - logits.logsumexp(1), None
        top = logits.amax(1, keepdim=True)
        p = logits.sub_(top).exp_()
        total = p.sum(1, keepdim=True)
        value = chosen - (total.log() + top).squeeze(1)
        gradient = p.div_(-total)
        gradient.scatter_add_(1, target, torch.ones_like(target, dtype=gradient.dtype))
        return value, gradient

    return _project(hidden, head, quantity)


def label_margins(hidden: Tensor, head: Head, labels: Tensor) -> Tensor:
    """How much likelier each label is than the likeliest other token: p(label) - max over the others of p.

    Args:
        hidden: (n, hidden) final states at the positions that predict the labels.
        head: the vocabulary projection.
        labels: (n,) token ids.

    Returns:
        (n,) in [-1, 1], float32 (or float64), differentiable in `hidden` and the head's weights.
    """

    def quantity(logits: Tensor, rows: slice, slope: bool) -> tuple[Tensor, Tensor | None]:
        target = labels[rows, None]
        p = logits.softmax(1)
        chosen = p.gather(1, target)
        rival, place = p.scatter(1, target, -1.0).max(1, keepdim=True)
        value = (chosen - rival).squeeze(1)
        if not slope:
            return value, None
        gradient = p.mul_(rival - chosen)
        gradient.scatter_add_(1, target, chosen).scatter_add_(1, place, -rival)
        return value, gradient

    return _project(hidden, head, quantity)


def reference_kl(hidden: Tensor, head: Head, reference_hidden: Tensor, reference_head: Head) -> Tensor:
    """KL(reference ‖ model) of the next-token distributions, a number a position, in nats.

    Args:
        hidden: (n, hidden) final states of the model.
        head: its vocabulary projection.
        reference_hidden: (n, hidden) final states of the frozen reference; no gradient flows into them.
        reference_head: its vocabulary projection.

    Returns:
        (n,) differentiable in `hidden` and the head's weights.
    """

    def quantity(logits: Tensor, rows: slice, slope: bool) -> tuple[Tensor, Tensor | None]:
        log_q = reference_head.logits(reference_hidden[rows]).log_softmax(1)
        log_p = logits.log_softmax(1)
        q = log_q.exp()
        value = (q * (log_q - log_p)).sum(1)
        return value, log_p.exp_().sub_(q) if slope else None

    return _project(hidden, head, quantity)


def adjusted_cross_entropy(
    hidden: Tensor,
    head: Head,
    labels: Tensor,
    penalty: float,
    reference_hidden: Tensor | None = None,
    reference_head: Head | None = None,
) -> Tensor:
    """Cross entropy of the model towards a distribution with its label's logit lowered, a number a position, in nats.

    The target is softmax(z - penalty · onehot(label)), z being the reference's logits, or the model's own of this
    moment; it is a constant either way. An infinite penalty takes the label out of the target altogether.

    Args:
        hidden: (n, hidden) final states at the positions that predict the labels.
        head: the vocabulary projection.
        labels: (n,) token ids.
        penalty: what the label's logit is lowered by.
        reference_hidden: (n, hidden) final states of the frozen reference; None takes the model's own.
        reference_head: the reference's vocabulary projection, given with its states.

    Returns:
        (n,) differentiable in `hidden` and the head's weights.
    """

    def quantity(logits: Tensor, rows: slice, slope: bool) -> tuple[Tensor, Tensor | None]:
        if reference_hidden is None or reference_head is None:
            target = logits.clone()
        else:
            target = reference_head.logits(reference_hidden[rows])
        lowered = torch.full_like(target[:, :1], -penalty)
        q = target.scatter_add_(1, labels[rows, None], lowered).softmax(1)
        log_p = logits.log_softmax(1)
        value = -(q * log_p).sum(1)
        return value, log_p.exp_().sub_(q) if slope else None

    return _project(hidden, head, quantity)


def logit_margins(hidden: Tensor, head: Head) -> Tensor:
    """How far the largest logit lies above the mean of all: max z - mean z, a number a position.

    Args:
        hidden: (n, hidden) final states.
        head: the vocabulary projection.

    Returns:
        (n,) at least 0, differentiable in `hidden` and the head's weights.
    """

    def quantity(logits: Tensor, rows: slice, slope: bool) -> tuple[Tensor, Tensor | None]:
        top, place = logits.max(1, keepdim=True)
        value = (top - logits.mean(1, keepdim=True)).squeeze(1)
        if not slope:
            return value, None
        gradient = torch.full_like(logits, -1 / logits.shape[1])
        return value, gradient.scatter_add_(1, place, torch.ones_like(top))

    return _project(hidden, head, quantity)


@contextlib.contextmanager
def capture_hidden(model: nn.Module) -> Iterator[list[Tensor]]:
    """Within the context a forward pass stops before the vocabulary projection and leaves its input in the list.

    The output head answers with an empty vocabulary, so that the rest of any architecture's forward still runs
    and wrappers around the model (peft, DDP) see an ordinary call.
    """
    module = model.get_output_embeddings()  # type: ignore[operator]
    captured: list[Tensor] = []

    def keep(hidden: Tensor) -> Tensor:
        captured.append(hidden)
        return hidden[..., :0]

    module.forward = keep
    try:
        yield captured
    finally:
        del module.forward
