"""Datamodels: what a model would answer had it been trained on other rows, from many models that were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from demur.editing.attribution import Attribution
from demur.editing.ensembles import Ensemble, cached_ensemble
from demur.errors import UsageError
from demur.models.descent import tell
from demur.processes import Progress

if TYPE_CHECKING:
    from demur.data.labelled import Labelled
    from demur.models.classifier import Classifier

__all__ = ["ResampledDatamodel", "agreement", "half_masks", "resampled_datamodel", "ridge_datamodel"]

_HELD = 0.1


def half_masks(models: int, rows: int, seed: int = 0, fraction: float = 0.5) -> Tensor:
    """(models, rows) bool: a random share of the rows for each model, as many for each.

    Raises:
        UsageError: the share leaves no rows, or leaves none out.
    """
    count = round(fraction * rows)
    if not 0 < count < rows:
        raise UsageError(f"a share of {fraction:g} of {rows} rows leaves {'none' if count <= 0 else 'none out'}")
    places = np.random.default_rng([seed, 17]).random((models, rows)).argsort(1)[:, :count]
    return torch.zeros(models, rows, dtype=torch.bool).scatter_(1, torch.from_numpy(places), True)


def ridge_datamodel(masks: Tensor, outputs: Tensor, ridge: float, rows: Tensor | None = None) -> Tensor:
    """β of outputs ≈ b + Σ_{i in the mask} β_i, by ridge regression: β = (AᵀA + λI)⁻¹ Aᵀ (L - L̄), in closed form.

    A are the masks less their column means, L the outputs (Ilyas et al. 2022, arXiv 2202.00622, with ridge for lasso).

    Args:
        masks: (models, rows) bool.
        outputs: (models, …) what each model says.
        ridge: λ > 0.
        rows: numbers of the rows to tell of; all by default.

    Returns:
        (rows, …).

    Raises:
        ValueError: λ is not positive, or there are not as many masks as outputs.
    """
    if not ridge > 0 or len(masks) != len(outputs) or len(masks) < 2:
        raise ValueError(f"ridge {ridge:g} for {len(masks)} masks and {len(outputs)} outputs: need ridge > 0 and pairs")
    a = masks.double()
    a = a - a.mean(0)
    wanted = a if rows is None else a[:, rows]
    models, features = a.shape
    if models < features:
        solved = torch.linalg.solve(a @ a.T + ridge * torch.eye(models, dtype=a.dtype), wanted).T
    else:
        places = torch.arange(features) if rows is None else rows
        unit = torch.eye(features, dtype=a.dtype)
        solved = torch.linalg.solve(a.T @ a + ridge * unit, unit[:, places]).T @ a.T
    flat = outputs.reshape(models, -1)
    # Each row of `solved` sums to 0, so that the outputs' mean drops out.
    return (solved.to(flat.dtype) @ (flat - flat.mean(0))).reshape(-1, *outputs.shape[1:])


def agreement(predicted: Tensor, real: Tensor) -> tuple[float, float]:
    """Correlation of predicted and real changes, and the slope of the real ones on the predicted: 1 and 1 are ideal."""
    p, r = (x.flatten().double() - x.double().mean() for x in (predicted, real))
    both = float(p @ r)
    return both / max(float(p.norm() * r.norm()), 1e-12), both / max(float(p @ p), 1e-12)


@dataclass(frozen=True)
class ResampledDatamodel:
    """Models trained on random parts of a set, and the regression of their logits on what they saw.

    Attributes:
        ensemble: the models.
        masks: (models, rows) bool, what each saw.
        ids: (rows,) of the training set.
        ridge: λ of the regression.
    """

    ensemble: Ensemble
    masks: Tensor
    ids: Tensor
    ridge: float

    def beta(self, targets: Labelled, rows: Tensor | Sequence[int] | None = None) -> Attribution:
        """The attribution of the targets' logits.

        Args:
            targets: rows of any set; their ids must differ from one another.
            rows: ids of the training rows to tell of; all by default. Few rows cost few numbers.

        Raises:
            UsageError: an id is not of the training set.
        """
        places = None
        if rows is not None:
            known = {int(name): place for place, name in enumerate(self.ids)}
            unknown = [int(name) for name in rows if int(name) not in known]
            if unknown:
                raise UsageError(f"row {unknown[0]} is not in the set that the datamodel was trained on")
            places = torch.tensor([known[int(name)] for name in rows])
        beta = ridge_datamodel(self.masks, self.ensemble.logits(targets), self.ridge, places)
        told = self.ids if places is None else self.ids[places]
        return Attribution(beta.numpy(), told.numpy(), targets.ids.numpy())

    def held_out(self, targets: Labelled) -> tuple[float, float]:
        """`agreement` on the last tenth of the models, of a regression on the others: how far β is to be believed."""
        fitted = len(self.masks) - max(2, round(_HELD * len(self.masks)))
        outputs = self.ensemble.logits(targets)
        beta = ridge_datamodel(self.masks[:fitted], outputs[:fitted], self.ridge * fitted / len(self.masks))
        share = self.masks[:fitted].float().mean(0)
        predicted = torch.tensordot(self.masks[fitted:].float() - share, beta, 1)
        return agreement(predicted, outputs[fitted:] - outputs[:fitted].mean(0))


def resampled_datamodel(
    model: Classifier,
    data: Labelled,
    models: int,
    *,
    fraction: float = 0.5,
    ridge: float | None = None,
    epochs: int = 12,
    learning_rate: float = 0.05,
    batch_size: int = 64,
    weight_decay: float = 5e-4,
    seed: int = 0,
    progress: Progress = tell,
) -> ResampledDatamodel:
    """Train models on random parts of a set, once: they lie in the cache for every later request.

    Args:
        model: tells the architecture.
        data: the training set.
        models: how many; with fewer than there are rows the effects come out too small.
        fraction: share of the rows that each sees.
        ridge: λ; 0.04 times the number of models by default, a sixth of what a row's column weighs at halves.
        epochs, learning_rate, batch_size, weight_decay: as the model itself was trained.
        seed: of the first model and of the parts.
        progress: called with the models done.

    Raises:
        UsageError: the share is out of range.
    """
    masks = half_masks(models, len(data), seed, fraction)
    ensemble = cached_ensemble(
        model,
        data,
        models,
        masks=masks,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        weight_decay=weight_decay,
        seed=seed,
        progress=progress,
    )
    return ResampledDatamodel(ensemble, masks, data.ids, 0.04 * models if ridge is None else ridge)
