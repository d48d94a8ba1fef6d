"""Selective synaptic dampening: shrink the weights that matter to the forget set out of proportion."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from demur.editing.fisher import Fisher, Loss, fisher_diagonal
from demur.editing.registry import editor
from demur.errors import UsageError

if TYPE_CHECKING:
    from demur.data.labelled import Labelled
    from demur.models.classifier import Classifier

__all__ = ["dampen", "ssd"]

_MANY = 0.25


def dampen(
    weight: Tensor, forget: Tensor, train: Tensor, alpha: float = 10.0, lam: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Selective synaptic dampening of one tensor (arXiv 2308.07707, eqs. 6 to 8).

    Selected are the weights with I_f > α I_D; each becomes θ · min(λ I_D / I_f, 1).

    Args:
        weight: θ.
        forget, train: importances I_f for the forget set and I_D for all training data, of the same shape.
        alpha: α > 0, how far out of proportion.
        lam: λ ≥ 0, how much of a selected weight stays.

    Returns:
        The new weights and which of them were selected.

    Raises:
        ValueError: α is not positive, or λ is negative.
    """
    if not alpha > 0 or not lam >= 0:
        raise ValueError(f"alpha must be above 0 and lam at least 0, not {alpha} and {lam}")
    selected = forget > alpha * train
    # Where nothing is selected the ratio may be 0/0; it is not looked at.
    scale = (lam * train / forget.where(selected, torch.ones_like(forget))).clamp(max=1)
    return torch.where(selected, weight * scale, weight), selected


@editor("ssd", paper="2308.07707")
def ssd(
    model: Classifier,
    forget: Labelled,
    retain: Labelled,
    *,
    seed: int = 0,
    alpha: float = 10.0,
    lam: float = 1.0,
    alpha_relative: float | None = None,
    fisher: Fisher = "sample",
    loss: Loss = "cross_entropy",
    batch_size: int = 64,
    importances: Mapping[str, Tensor] | None = None,
) -> Classifier:
    """Selective synaptic dampening: no step of training, one pass over each set.

    Where forget rows are a share N_f/N of the training set, importances of single samples have I_f ≤ (N/N_f) I_D, so
    that α at or above N/N_f selects nothing: choose `alpha_relative` there.

    Args:
        model: the trained model.
        forget, retain: the two parts of the training set.
        seed: not used.
        alpha: a weight is dampened when it matters so many times more to the forget set than to all data.
        lam: how much of a dampened weight stays.
        alpha_relative: α as a share of its largest useful value, N/N_f; 0.3 to 0.5 is a good start.
        fisher: how importance is measured, see `fisher_diagonal`.
        loss: "logit_norm" needs no labels.
        batch_size: samples in one pass.
        importances: those of all training data, where they were kept; the retain rows are not read then.

    Returns:
        A changed copy; `facts` say what share of the weights was dampened, in all and by tensor.

    Raises:
        ValueError: alpha or lam is out of range.
        UsageError: kept importances are of another model.
    """
    if alpha_relative is not None:
        alpha = alpha_relative * (len(forget) + len(retain)) / len(forget)
    own = fisher_diagonal(model, forget, fisher=fisher, loss=loss, batch_size=batch_size)
    if importances is None:
        importances = fisher_diagonal(model, retain.joined(forget), fisher=fisher, loss=loss, batch_size=batch_size)
    edited = model.copied()
    shares, total, count = {}, 0, 0
    for name, weight in edited.module.named_parameters():
        if name not in importances or importances[name].shape != weight.shape:
            raise UsageError(f"the kept importances are of another model: {name} is missing or of another shape")
        new, selected = dampen(weight.detach(), own[name], importances[name], alpha, lam)
        weight.data.copy_(new)
        total, count = total + int(selected.sum()), count + weight.numel()
        shares[name] = float(selected.float().mean())
    share = total / count
    if not total:
        warnings.warn(f"ssd dampened nothing at alpha {alpha:g}: lower it, or use alpha_relative=0.4", stacklevel=2)
    elif share > _MANY:
        warnings.warn(f"ssd dampened {share:.0%} of all weights at alpha {alpha:g}: raise it", stacklevel=2)
    edited.facts |= {"alpha": alpha, "selected": share, "selected_by_tensor": shares}
    return edited
