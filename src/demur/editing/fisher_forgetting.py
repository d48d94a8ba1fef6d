"""Fisher forgetting: noise on every weight, as much as the rows to keep can bear (Golatkar et al. 2020, 1911.04933)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from demur.editing.registry import PROBABILISTIC, editor

if TYPE_CHECKING:
    from demur.data.labelled import Labelled
    from demur.models.classifier import Classifier

__all__ = ["expected_fisher", "fisher_forgetting", "noise_variance"]

_SMALL = 1e-8
_MOST, _MOST_OF_HEAD = 1e3, 1e2


def expected_fisher(model: Classifier, data: Labelled, batch_size: int = 32) -> dict[str, Tensor]:
    """The diagonal of the Fisher information: mean over rows of Σ_y p_y (∂ log p_y / ∂θ)², in evaluation mode.

    Args:
        model: left as it is.
        data: rows; their labels are not read.
        batch_size: rows at once, a matter of memory.

    Returns:
        Parameter → information, of its shape.
    """
    weights = {name: p.detach() for name, p in model.module.named_parameters()}
    total = {name: torch.zeros_like(weight) for name, weight in weights.items()}

    def scaled(given: dict[str, Tensor], row: Tensor, one_hot: Tensor) -> Tensor:
        logp = (model.logits_with(given, row[None])[0].log_softmax(0) * one_hot).sum()
        return (0.5 * logp.detach()).exp() * logp  # squared, its gradient is p_y (∂ log p_y)²

    of_each = torch.func.vmap(torch.func.vmap(torch.func.grad(scaled), (None, None, 0)), (None, 0, None))
    one_hot, data = torch.eye(model.classes), data.with_labels(torch.zeros(len(data), dtype=torch.long))
    with model.evaluating():
        for start in range(0, len(data), batch_size):
            for name, grad in of_each(weights, data.batch(slice(start, start + batch_size))[0], one_hot).items():
                total[name] += grad.square().sum((0, 1))
    return {name: value / len(data) for name, value in total.items()}


def noise_variance(fisher: Tensor, alpha: float, *, head: bool) -> Tensor:
    """How much noise a tensor gets: α/F, bounded, the same along a row of a matrix, tenfold for biases and the head.

    Args:
        fisher: F, of the tensor's shape.
        alpha: α ≥ 0.
        head: whether the tensor belongs to the last layer.

    Returns:
        Variances, of the same shape.
    """
    inverse = (1 / (fisher + _SMALL)).clamp(max=_MOST_OF_HEAD if head else _MOST)
    variance = alpha * inverse
    if variance.ndim > 1:
        variance = variance.mean(1, keepdim=True).expand_as(fisher)
    return 10 * variance if head or variance.ndim == 1 else variance


@editor("fisher", paper="1911.04933", labels=False, kinds=PROBABILISTIC)
def fisher_forgetting(
    model: Classifier,
    forget: Labelled,
    retain: Labelled,
    *,
    seed: int = 0,
    alpha: float = 1e-6,
    batch_size: int = 32,
) -> Classifier:
    """Fisher forgetting: θ + √(α/F) ε, F the Fisher information of the rows to keep.

    Args:
        model: the trained model.
        forget: not read.
        retain: rows to keep; their labels are not read.
        seed: of the noise.
        alpha: α ≥ 0, how much noise; 0 changes nothing. Published values are 1e-8 to 1e-6.
        batch_size: rows at once, a matter of memory.

    Returns:
        A changed copy; `facts` say how far the weights went, as a share of their length.

    Raises:
        ValueError: alpha is negative.
    """
    if not alpha >= 0:
        raise ValueError(f"alpha must be at least 0, not {alpha}")
    edited = model.copied()
    fisher = expected_fisher(model, retain, batch_size)
    generator = torch.Generator().manual_seed(seed)
    moved = length = 0.0
    for name, weight in edited.module.named_parameters():
        variance = noise_variance(fisher[name], alpha, head=name.startswith(f"{model.head}."))
        noise = variance.sqrt() * torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
        moved, length = moved + float(noise.square().sum()), length + float(weight.detach().square().sum())
        weight.data.add_(noise)
    edited.facts["step"] = (moved / length) ** 0.5
    return edited
