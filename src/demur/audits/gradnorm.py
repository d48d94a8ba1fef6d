"""The gradient-norm membership score: how hard one answer pulls at the weights (arXiv 2402.17012)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from demur.data import Encoded
    from demur.models import LanguageModel

__all__ = ["gradient_norms"]


def gradient_norms(
    lm: LanguageModel,
    encoded: Sequence[Encoded],
    *,
    p: float = 2.0,
    strict: bool = True,
    mask_pads: bool = False,
    progress: Callable[[int], Any] | None = None,
) -> NDArray[np.float64]:
    """Mean over all parameter tensors of the p-norm of each tensor's gradient, one backward pass an answer.

    The gradient is that of the mean NLL over the label tokens, the last left out. It is a mean of norms, not the norm
    of the whole gradient.

    Args:
        lm: the model; its gradients, mode and trainable flags are left as they were.
        encoded: prompts with their answers.
        p: which norm.
        strict: measure in eval mode. Without it in train mode, as open-unlearning does, where dropout adds noise.
        mask_pads: hide every token that equals the pad token, inside the text too, as open-unlearning does.
        progress: called with 1 after each answer.

    Returns:
        (answers,) norms, large for texts that look unseen; nan where nothing but the last token exists.
    """
    import torch

    model = lm.model
    weights = [w for w in model.parameters() if w.is_floating_point()]
    trainable, training = [w.requires_grad for w in weights], model.training
    out = np.full(len(encoded), np.nan)
    try:
        for weight in weights:
            weight.requires_grad_(True)
        model.train(not strict)
        for index, item in enumerate(encoded):
            loss = _nll(lm, item, mask_pads)
            if loss is not None:
                gradients = torch.autograd.grad(loss, weights, allow_unused=True)
                norms = [torch.linalg.vector_norm(g.float(), p) for g in gradients if g is not None]
                out[index] = float(torch.stack(norms).mean())
            if progress is not None:
                progress(1)
    finally:
        for weight, flag in zip(weights, trainable, strict=True):
            weight.requires_grad_(flag)
        model.train(training)
    return out


def _nll(lm: LanguageModel, item: Encoded, mask_pads: bool) -> torch.Tensor | None:
    import torch

    first = item.first_label
    if len(item.input_ids) - first < 2:
        return None
    ids = torch.tensor([item.input_ids[:-1]], device=lm.device)  # the last token is neither read nor predicted
    mask = ids != lm.pad_id if mask_pads else torch.ones_like(ids)
    logits = lm.model(input_ids=ids, attention_mask=mask.long(), use_cache=False).logits[0, first - 1 : -1].float()
    return torch.nn.functional.cross_entropy(logits, ids[0, first:])
