"""How much each weight matters to a set: the diagonal of the empirical Fisher information, and its label-free kin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from demur.errors import UsageError

if TYPE_CHECKING:
    from demur.data.labelled import Labelled
    from demur.models.classifier import Classifier

__all__ = ["Fisher", "Loss", "fisher_diagonal"]

Fisher = Literal["sample", "batch"]
Loss = Literal["cross_entropy", "logit_norm"]


def fisher_diagonal(
    model: Classifier,
    data: Labelled,
    *,
    fisher: Fisher = "sample",
    loss: Loss = "cross_entropy",
    batch_size: int = 64,
) -> dict[str, Tensor]:
    """The importance of each parameter for a set (Foster et al. 2023, arXiv 2308.07707).

    I = mean (∂ℓ/∂θ)², over samples or over batches; in evaluation mode, in float32.

    Args:
        model: left as it is.
        data: the set, in its own order.
        fisher: "sample" squares each sample's gradient, as the paper writes; "batch" that of a batch's mean loss, as
            its code does, so that size and order of the batches change the outcome.
        loss: cross entropy with the labels; or the squared norm of the logits, which needs none, with |∂ℓ/∂θ| in place
            of the square (arXiv 2402.19308).
        batch_size: samples in a batch; for "sample" only a matter of memory.

    Returns:
        Parameter → importance, of its shape.

    Raises:
        UsageError: an option is unknown, or the set is empty.
    """
    if fisher not in ("sample", "batch") or loss not in ("cross_entropy", "logit_norm"):
        raise UsageError(
            f"importance needs fisher sample or batch and loss cross_entropy or logit_norm, not {fisher}, {loss}"
        )
    if not len(data):
        raise UsageError(f"{data.name} is empty: nothing is important for it")
    weights = {name: p.detach() for name, p in model.module.named_parameters()}
    total = {name: torch.zeros_like(w, dtype=torch.float32) for name, w in weights.items()}
    size = torch.square if loss == "cross_entropy" else torch.abs

    def mean_loss(given: dict[str, Tensor], inputs: Tensor, labels: Tensor) -> Tensor:
        logits = model.logits_with(given, inputs)
        return F.cross_entropy(logits, labels) if loss == "cross_entropy" else logits.square().sum(1).mean()

    def sample_loss(given: dict[str, Tensor], row: Tensor, label: Tensor) -> Tensor:
        return mean_loss(given, row[None], label[None])

    of_each = torch.func.vmap(torch.func.grad(sample_loss), (None, 0, 0))
    of_batch = torch.func.grad(mean_loss)
    count = 0
    with model.evaluating():
        for start in range(0, len(data), batch_size):
            inputs, labels = data.batch(slice(start, start + batch_size))
            grads = of_each(weights, inputs, labels) if fisher == "sample" else of_batch(weights, inputs, labels)
            for name, grad in grads.items():
                sized = size(grad.float())
                total[name] += sized.sum(0) if fisher == "sample" else sized
            count += len(inputs) if fisher == "sample" else 1
    return {name: value / count for name, value in total.items()}
