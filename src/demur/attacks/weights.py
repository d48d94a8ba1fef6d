"""Attacks that blur the weights: rounding to few bits, noise, pruning.

An update that hides knowledge is often small against the weights it changes; rounding, which a user may do for
other reasons, can then undo it (Zhang et al. 2024, arXiv 2410.16454). Embeddings and the output head are left alone.
Each change lasts for a `with` block, after which the weights are the same to the bit.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from demur.attacks.knowledge import answer_probability
from demur.errors import UsageError
from demur.models.scored import unwrapped

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from demur.data import Encoded
    from demur.models import LanguageModel

__all__ = ["noised", "pruned", "quantization_attack", "quantized", "restored", "round_to_nearest"]


@contextlib.contextmanager
def restored(tensors: Iterable[Tensor]) -> Iterator[None]:
    """Whatever the block does to the values of these tensors, afterwards they are the same to the bit."""
    kept = [(tensor, tensor.detach().clone()) for tensor in tensors]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, values in kept:
                tensor.copy_(values)


def round_to_nearest(weight: Tensor, bits: int) -> Tensor:
    """Each row rounded to the nearest of 2^b − 1 evenly spaced values, symmetric about 0.

    The largest value of a row keeps its place, so that rounding twice is rounding once.

    Args:
        weight: (…, channels, inputs); one step size per row.
        bits: b >= 2: 2^{b−1} − 1 levels on either side of 0.

    Raises:
        UsageError: fewer than two bits.
    """
    if bits < 2:
        raise UsageError(f"rounding needs at least 2 bits, not {bits}")
    levels = 2 ** (bits - 1) - 1
    exact = weight.detach().float()
    top = exact.abs().amax(-1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    return ((exact / top * levels).round() / levels * top).to(weight.dtype)


def _linear_weights(model: nn.Module) -> list[tuple[Tensor, bool]]:
    """The weights of linear maps inside the decoder, and whether their output channels are columns."""
    inner = unwrapped(model)
    shared = {id(m.weight) for m in (inner.get_input_embeddings(), inner.get_output_embeddings()) if m is not None}
    found: dict[int, tuple[Tensor, bool]] = {}
    for module in inner.modules():
        if isinstance(module, nn.Linear | Conv1D):
            found[id(module.weight)] = module.weight, isinstance(module, Conv1D)
        else:  # the experts of a layer lie in one tensor, (experts, channels, inputs)
            found |= {id(p): (p, False) for p in module.parameters(recurse=False) if p.dim() == 3}
    return [pair for key, pair in found.items() if key not in shared]


@contextlib.contextmanager
def quantized(model: nn.Module, bits: int) -> Iterator[None]:
    """The linear weights rounded to nearest, symmetric, one step per output channel, inside the block.

    Args:
        model: a causal LM; merge adapters first.
        bits: see `round_to_nearest`.
    """
    weights = _linear_weights(model)
    with restored(weight for weight, _ in weights), torch.no_grad():
        for weight, columns in weights:
            weight.copy_(round_to_nearest(weight.T, bits).T if columns else round_to_nearest(weight, bits))
        yield


@contextlib.contextmanager
def noised(model: nn.Module, sigma: float, seed: int = 0) -> Iterator[None]:
    """Gaussian noise of `sigma` times each linear weight tensor's standard deviation, inside the block.

    Args:
        model: a causal LM.
        sigma: 0 changes nothing.
        seed: decides the noise.

    Raises:
        UsageError: sigma is negative.
    """
    if sigma < 0:
        raise UsageError(f"noise needs a size of 0 or more, not {sigma}")
    weights = [weight for weight, _ in _linear_weights(model)]
    generator = torch.Generator().manual_seed(seed)
    with restored(weights), torch.no_grad():
        for weight in weights:
            noise = torch.randn(weight.shape, generator=generator).to(weight.device)
            weight.add_((sigma * weight.float().std() * noise).to(weight.dtype))
        yield


@contextlib.contextmanager
def pruned(model: nn.Module, share: float) -> Iterator[None]:
    """The smallest `share` of each linear weight tensor set to 0, inside the block.

    Raises:
        UsageError: the share does not lie in [0, 1).
    """
    if not 0 <= share < 1:
        raise UsageError(f"the share to prune must lie in [0, 1), not {share}")
    weights = [weight for weight, _ in _linear_weights(model)]
    with restored(weights), torch.no_grad():
        for weight in weights:
            count = int(share * weight.numel())
            if count:
                weight.view(-1)[weight.abs().flatten().topk(count, largest=False).indices] = 0
        yield


def quantization_attack(
    lm: LanguageModel, encoded: Sequence[Encoded], bits: Sequence[int] = (8, 4, 3)
) -> dict[int, NDArray[np.float64]]:
    """What the model knows when its linear weights are rounded.

    Args:
        lm: the model; its weights are the same afterwards.
        encoded: questions with true answers.
        bits: how many bits, each tried.

    Returns:
        bits → (n,) answer probabilities.

    Raises:
        UsageError: fewer than two bits.
    """
    found = {}
    for count in bits:
        with quantized(lm.model, count):
            found[count] = answer_probability(lm, encoded)
    return found
