"""Selective synaptic dampening: shrink the weights that matter to the forget set out of proportion."""

from __future__ import annotations

import copy
import fnmatch
import functools
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor

from demur.editing.fisher import Fisher, Importances, Loss, token_fisher
from demur.editing.registry import PROBABILISTIC, editor
from demur.errors import UsageError

if TYPE_CHECKING:
    from demur.data.batch import Encoded
    from demur.data.labelled import Labelled
    from demur.models.classifier import Classifier
    from demur.models.language_model import LanguageModel

__all__ = ["dampen", "quantile_alpha", "ssd", "ssd_language_model"]

Reference = Literal["all", "retain"]

_MANY = 0.25
_LEVELS = (0.5, 0.9, 0.99, 0.999, 1.0)


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


def quantile_alpha(ratios: Tensor, forget_share: float) -> float:
    """The α of the adaptive sibling: above it lie the ratios of ln(1 + 100 N_f/N) percent of all weights.

    That is 2.4 % of them for a tenth of the rows, and 0.7 % for a hundredth. After ASSD (arXiv 2402.10098), whose code
    leaves out weights that matter to no row; here they count, with ratio 0, so that the share is one of all weights.

    Args:
        ratios: (weights,) I_f / I_D of all of them.
        forget_share: N_f / N, in (0, 1].

    Returns:
        α, at least 1.
    """
    share = math.log1p(100 * forget_share) / 100
    place = max(1, math.ceil((1 - share) * len(ratios)))
    return max(1.0, float(ratios.kthvalue(place).values))


@editor("ssd", paper="2308.07707", kinds=PROBABILISTIC)
def ssd(
    model: Classifier,
    forget: Labelled,
    retain: Labelled,
    *,
    seed: int = 0,
    alpha: float | Literal["quantile"] = 10.0,
    lam: float = 1.0,
    alpha_relative: float | None = None,
    fisher: Fisher = "sample",
    loss: Loss = "cross_entropy",
    reference: Reference = "all",
    include: str = "*",
    exclude: str = "",
    batch_size: int = 64,
    importances: Importances | Mapping[str, Tensor] | str | Path | None = None,
) -> Classifier:
    """Selective synaptic dampening: no step of training, one pass over each set.

    Where forget rows are a share N_f/N of the training set, importances of single samples have I_f ≤ (N/N_f) I_D, so
    that α at or above N/N_f selects nothing: choose `alpha_relative` or "quantile" there.

    Args:
        model: the trained model.
        forget, retain: the two parts of the training set.
        seed: not used.
        alpha: a weight is dampened when it matters so many times more to the forget set than to all data; or
            "quantile", which chooses α for each model, see `quantile_alpha`.
        lam: how much of a dampened weight stays.
        alpha_relative: α as a share of its largest useful value, N/N_f; 0.3 to 0.5 is a good start.
        fisher: how importance is measured, see `fisher_diagonal`.
        loss: "logit_norm" is the label-free sibling (LFSSD).
        reference: what the forget set is compared with: "all" training data, as the paper has it, or "retain" rows
            only, for which ratios have no bound and a lower α collapses the model.
        include, exclude: patterns of parameter names, separated by commas, such as "classifier.*".
        batch_size: samples in a batch of fisher "batch", in the order of the rows, the retain rows first.
        importances: those of all training data, where they were kept: `Importances`, or its file. The retain rows are
            not read then, and N is the number of rows that was kept with them.

    Returns:
        A changed copy; `facts` say what share of the weights was dampened, in all and by tensor, at which α, the
        quantiles of the ratio I_f / I_D, and what share of all importance the forget rows hold. Where that is well
        above N_f/N a fixed α takes too many weights.

    Raises:
        ValueError: an option is out of range.
        UsageError: kept importances are of another model or were measured otherwise, or no parameter is included.
    """
    if reference not in get_args(Reference) or (reference == "retain" and alpha_relative is not None):
        raise ValueError(f"reference must be all or retain, and all with alpha_relative, not {reference!r}")
    measured = functools.partial(Importances.measured, model, fisher=fisher, loss=loss, batch_size=batch_size)
    if importances is None:
        kept = measured(retain.joined(forget) if reference == "all" else retain)
    else:
        kept = _kept(importances, len(forget) + len(retain), fisher, loss)
    own = measured(forget).values
    edited = model.copied()
    weights = {n: p for n, p in edited.module.named_parameters() if _matches(n, include) and not _matches(n, exclude)}
    if not weights:
        raise UsageError(f"include {include!r} without exclude {exclude!r} leaves no parameter of the model")
    for name, weight in weights.items():
        if name not in kept.values or kept.values[name].shape != weight.shape:
            raise UsageError(f"the kept importances are of another model: {name} is missing or of another shape")
    rows = len(forget) + len(retain) if importances is None else kept.rows
    level = alpha if alpha_relative is None else alpha_relative * rows / len(forget)
    edited.facts |= _dampen_all(weights, own, kept.values, level, lam, len(forget) / rows)
    edited.facts["importance"] = f"{loss} by {fisher}" + (f" of {batch_size} rows" if fisher == "batch" else "")
    edited.facts["held by forget rows"] = len(forget) * _sum(own) / (rows * _sum(kept.values))
    edited.facts["batch statistics"] = "as they were"
    return edited


def ssd_language_model(
    lm: LanguageModel,
    forget: Sequence[Encoded],
    retain: Sequence[Encoded],
    *,
    alpha: float | Literal["quantile"] = "quantile",
    lam: float = 1.0,
) -> tuple[LanguageModel, dict[str, Any]]:
    """Selective synaptic dampening of a language model.

    Args:
        lm: left as it is.
        forget, retain: rows with answers, as `models.encode` makes them.
        alpha, lam: as of `ssd`.

    Returns:
        A changed copy, and what was selected, as the `facts` of `ssd` say it.
    """
    changed = replace(lm, model=copy.deepcopy(lm.model), path=None)
    own, every = token_fisher(lm, forget), token_fisher(lm, [*retain, *forget])
    weights = dict(changed.model.named_parameters())
    return changed, _dampen_all(weights, own, every, alpha, lam, len(forget) / (len(forget) + len(retain)))


def _dampen_all(
    weights: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    every: Mapping[str, Tensor],
    alpha: float | str,
    lam: float,
    forget_share: float,
) -> dict[str, Any]:
    """Dampen parameters in place; what was selected."""
    ratios = torch.cat([(own[name] / every[name]).nan_to_num(0).flatten() for name in weights])
    if isinstance(alpha, str):
        if alpha != "quantile":
            raise ValueError(f"alpha must be a number or quantile, not {alpha!r}")
        alpha = quantile_alpha(ratios, forget_share)
    shares, total = {}, 0
    for name, weight in weights.items():
        new, selected = dampen(weight.detach(), own[name], every[name], alpha, lam)
        weight.data.copy_(new)
        shares[name] = float(selected.float().mean())
        total += int(selected.sum())
    if not total:
        warnings.warn(f"ssd dampened nothing at alpha {alpha:g}: lower it, or use alpha_relative=0.4", stacklevel=3)
    elif total > _MANY * len(ratios):
        warnings.warn(
            f"ssd dampened {total / len(ratios):.0%} of the weights at alpha {alpha:g}: raise it", stacklevel=3
        )
    quantiles = {f"{q:g}": float(ratios.kthvalue(math.ceil(q * len(ratios))).values) for q in _LEVELS}
    return {
        "alpha": alpha,
        "selected": total / len(ratios),
        "selected by tensor": shares,
        "ratio quantiles": quantiles,
    }


def _kept(
    importances: Importances | Mapping[str, Tensor] | str | Path, rows: int, fisher: Fisher, loss: Loss
) -> Importances:
    if isinstance(importances, Mapping):
        return Importances(importances, rows, fisher, loss)
    kept = importances if isinstance(importances, Importances) else Importances.load(importances)
    if (kept.fisher, kept.loss) != (fisher, loss):
        raise UsageError(f"the kept importances were measured with fisher={kept.fisher} and loss={kept.loss}")
    return kept


def _sum(values: Mapping[str, Tensor]) -> float:
    return sum(float(value.sum()) for value in values.values())


def _matches(name: str, patterns: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern.strip()) for pattern in patterns.split(",") if pattern.strip())
