"""Fine-tuning by the gradient's sign on weighted rows: forgetting that is smooth in what is to be forgotten."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from demur.models.descent import batches

if TYPE_CHECKING:
    from demur.data.labelled import Labelled
    from demur.models.classifier import Classifier

__all__ = ["sign_descent"]


def sign_descent(
    model: Classifier,
    data: Labelled,
    weights: Tensor,
    *,
    epochs: int = 2,
    learning_rate: float = 1e-3,
    batch_size: int = 64,
    seed: int = 0,
) -> Classifier:
    """θ ← θ - η sign(∇ Σ (1 - w_i) CE_i) over batches: fine-tuning on the rows as far as they are kept.

    The lower level of worst-case forget sets (Fan et al. 2024, arXiv 2403.07362, section 4). A sign does not change
    with small changes of w, so that the outcome's derivative with respect to w is zero almost everywhere. Neither
    momentum nor weight decay; whether a batch's losses are added up or averaged makes no difference.

    Args:
        model: left as it is.
        data: the training set.
        weights: (rows,) w in [0, 1], how far each row is to be forgotten.
        epochs, learning_rate, batch_size: of the descent.
        seed: of the order.

    Returns:
        A changed copy, in evaluation mode.
    """
    edited = model.copied(method="sign descent")
    parameters = [p for p in edited.module.parameters() if p.requires_grad]
    edited.module.train()
    for epoch in range(epochs):
        for rows in batches(len(data), batch_size, (seed, epoch)):
            inputs, labels = data.batch(rows)
            losses = F.cross_entropy(edited.logits(inputs), labels, reduction="none")
            loss = ((1 - weights[rows]).to(losses) * losses).sum()
            for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
                parameter.data.sub_(gradient.sign(), alpha=learning_rate)
    edited.module.eval()
    return edited
