"""Datamodel matching: fine-tune a model onto the outputs that it would have had without the forget rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from demur.editing.attribution import Attribution
from demur.editing.datamodels import resampled_datamodel
from demur.editing.ensembles import Ensemble, cached_ensemble
from demur.editing.registry import editor
from demur.errors import UsageError
from demur.models.descent import batches

if TYPE_CHECKING:
    from demur.data.labelled import Labelled
    from demur.models.classifier import Classifier

__all__ = ["Loss", "datamodel_direct", "datamodel_matching", "match_logits", "matching_set", "oracle_matching"]

Loss = Literal["mse", "ce"]


def datamodel_direct(
    logits: Tensor,
    ids: Tensor,
    attribution: Attribution,
    forget: Tensor,
    *,
    multiplier: float = 1.0,
    diagonal_only: bool = False,
) -> Tensor:
    """DM-Direct: the logits that models trained without the forget rows are predicted to give, f - m Σ_{i∈F} β_i.

    Georgiev et al. 2024, arXiv 2410.23232. A correction belongs to a row and not to what the row looks like, so this
    corrects outputs and is no classifier: a picture that has no attribution gets no answer.

    Args:
        logits: (…, rows, classes) of the original model or models, in evaluation mode.
        ids: (rows,) of the rows.
        attribution: tells of these rows and of the forget rows.
        forget: ids of the forget rows.
        multiplier: m; 0 changes nothing.
        diagonal_only: correct forget rows only, each by what it contributes to itself.

    Returns:
        (…, rows, classes).

    Raises:
        UsageError: the attribution does not tell of a row, or a forget row stands there twice.
    """
    if not diagonal_only:
        return logits - multiplier * attribution.removed(forget, ids)
    attribution.removed(forget, ids[:0])
    correction = torch.zeros(logits.shape[-2:])
    for place in torch.isin(ids, forget).nonzero()[:, 0]:
        correction[place] = attribution.removed(ids[place, None], ids[place, None])[0]
    return logits - multiplier * correction


def matching_set(
    forget: Labelled, retain: Labelled, forget_multiplier: float = 1.0, retain_multiplier: float = 3.0, seed: int = 0
) -> Labelled:
    """The rows to match on: the forget rows, repeated, and some retained ones, drawn once.

    Args:
        forget: all of them go in `forget_multiplier` times; of a fraction, the first ones.
        retain: `retain_multiplier` times as many as there are forget rows are drawn, or all, where there are fewer.
        forget_multiplier, retain_multiplier: at least 0.
        seed: of the draw.

    Raises:
        ValueError: a multiplier is negative, or nothing is left.
    """
    drawn = round(retain_multiplier * len(forget))
    repeated = round(forget_multiplier * len(forget))
    if min(drawn, repeated) < 0 or drawn + repeated == 0:
        raise ValueError(f"multipliers {forget_multiplier:g} and {retain_multiplier:g} leave no rows to match on")
    again = torch.arange(repeated) % len(forget)
    kept = torch.as_tensor(np.random.default_rng([seed, 23]).permutation(len(retain))[:drawn])
    return forget.subset(again).joined(retain.subset(kept))


def match_logits(
    members: Ensemble,
    data: Labelled,
    targets: Tensor,
    *,
    loss: Loss = "mse",
    learning_rate: float = 5e-4,
    gamma: float = 0.95,
    epochs: int = 5,
    batch_size: int = 512,
    weight_decay: float = 0.0,
    seed: int = 0,
) -> Ensemble:
    """Train models, all at once, until they give target logits.

    mean (f_θ - target)² over rows and classes, or cross entropy with the targets' softmax; plus decay · ‖θ - θ_o‖²; by
    Adam, its rate falling from epoch to epoch, in training mode.

    Args:
        members: the models as they begin, θ_o; left as they are.
        data: the matching set.
        targets: (members, rows, classes); computed once, from the models as they begin.
        loss: "mse" or "ce".
        learning_rate, gamma: of the first epoch, and what it is multiplied by after each.
        epochs, batch_size: of the descent.
        weight_decay: towards where the models began.
        seed: of the order.

    Raises:
        ValueError: the loss is unknown, or the targets do not fit.
    """
    if loss not in ("mse", "ce"):
        raise ValueError(f"unknown loss {loss!r}: use mse or ce")
    if targets.shape[:2] != (len(members), len(data)):
        raise ValueError(f"targets of shape {tuple(targets.shape)} for {len(members)} models and {len(data)} rows")
    model = members.model.copied()
    names = [name for name, _ in model.module.named_parameters()]
    weights = {name: w.clone().requires_grad_(name in names) for name, w in members.weights.items()}
    moving = Ensemble(model, weights)
    optimizer = torch.optim.Adam([weights[name] for name in names], lr=learning_rate)
    slower = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma)
    model.module.train()
    for epoch in range(epochs):
        for rows in batches(len(data), batch_size, (seed, epoch)):
            inputs = data.batch(rows)[0]
            logits = moving(inputs.expand(len(members), *inputs.shape))
            value = _distance(logits, targets[:, rows], loss)
            if weight_decay:
                value = value + weight_decay * sum((weights[n] - members.weights[n]).square().sum() for n in names)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
        slower.step()
    model.module.eval()
    return Ensemble(model, {name: w.detach() for name, w in weights.items()})


def _distance(logits: Tensor, targets: Tensor, loss: Loss) -> Tensor:
    """The members' losses, summed: none of them slows down another."""
    if loss == "mse":
        return (logits - targets).square().mean((1, 2)).sum()
    return F.cross_entropy(logits.transpose(1, 2), targets.softmax(-1).transpose(1, 2), reduction="none").mean(1).sum()


def _matched(model: Classifier, members: Ensemble, **facts: object) -> Classifier:
    edited = model.copied(**facts)
    edited.module.load_state_dict({name: w[0] for name, w in members.weights.items()}, strict=False)
    return edited


@editor("dmm", paper="2410.23232")
def datamodel_matching(
    model: Classifier,
    forget: Labelled,
    retain: Labelled,
    *,
    seed: int = 0,
    attribution: Attribution | str | None = None,
    models: int = 300,
    train_epochs: int = 12,
    train_learning_rate: float = 0.05,
    train_batch_size: int = 64,
    multiplier: float = 1.0,
    diagonal_only: bool = False,
    forget_multiplier: float = 1.0,
    retain_multiplier: float = 3.0,
    loss: Loss = "mse",
    learning_rate: float = 5e-4,
    gamma: float = 0.95,
    epochs: int = 5,
    batch_size: int = 512,
    weight_decay: float = 0.0,
) -> Classifier:
    """Datamodel matching: predict what the model would say had it not seen the forget rows, and fine-tune it to that.

    Args:
        model: the trained model.
        forget, retain: the two parts of the training set; their ids must differ from one another.
        seed: of the retained rows, of their order, and of the datamodel's models.
        attribution: β of the training rows' logits, or its `.npy` file with the ids beside it; without one, models are
            trained on random halves of the set, once for all requests.
        models: how many of them; the paper takes 1,000 to 20,000.
        train_epochs, train_learning_rate, train_batch_size: how they are trained: as the model itself was.
        multiplier: m, how much of the predicted change is asked for.
        diagonal_only: only what each forget row contributes to itself.
        forget_multiplier, retain_multiplier: rows to match on, as multiples of the forget set.
        loss: "mse" of logits, or "ce" with the targets' softmax.
        learning_rate, gamma, epochs, batch_size: of Adam; the rate is multiplied by gamma after each epoch.
        weight_decay: towards the original weights.

    Raises:
        UsageError: an id stands there twice, or the attribution does not tell of a row.
        ValueError: an option is out of range.
    """
    chosen = matching_set(forget, retain, forget_multiplier, retain_multiplier, seed)
    facts: dict[str, object] = {"matched": len(chosen)}
    if attribution is None:
        everything = _by_id(forget, retain)
        datamodel = resampled_datamodel(
            model,
            everything,
            models,
            epochs=train_epochs,
            learning_rate=train_learning_rate,
            batch_size=train_batch_size,
            seed=seed,
        )
        correlation, scale = datamodel.held_out(forget)
        facts |= {"models": models, "held_out_correlation": correlation, "held_out_scale": scale}
        found = datamodel.beta(chosen, forget.ids)
    else:
        found = attribution if isinstance(attribution, Attribution) else Attribution.load(Path(attribution))
    if found.beta.shape[2] != model.classes:
        raise UsageError(
            f"the attribution tells of {found.beta.shape[2]} outputs, but {model.name} has {model.classes}"
        )
    targets = datamodel_direct(
        model.predict(chosen), chosen.ids, found, forget.ids, multiplier=multiplier, diagonal_only=diagonal_only
    )
    members = match_logits(
        Ensemble.of([model]),
        chosen,
        targets[None],
        loss=loss,
        learning_rate=learning_rate,
        gamma=gamma,
        epochs=epochs,
        batch_size=batch_size,
        weight_decay=weight_decay,
        seed=seed,
    )
    return _matched(model, members, **facts)


def _by_id(forget: Labelled, retain: Labelled) -> Labelled:
    """The training set in the order of its ids: the same for every forget set, so that its models are trained once."""
    everything = retain.joined(forget)
    values, counts = everything.ids.unique(return_counts=True)
    if len(values) < len(everything):
        raise UsageError(f"row {int(values[counts > 1][0])} is twice among {forget.name} and {retain.name}")
    return everything.subset(everything.ids.argsort())


@editor("om", paper="2410.23232")
def oracle_matching(
    model: Classifier,
    forget: Labelled,
    retain: Labelled,
    *,
    seed: int = 0,
    oracles: Ensemble | int = 10,
    train_epochs: int = 12,
    train_learning_rate: float = 0.05,
    train_batch_size: int = 64,
    forget_multiplier: float = 1.0,
    retain_multiplier: float = 3.0,
    loss: Loss = "mse",
    learning_rate: float = 5e-4,
    gamma: float = 0.95,
    epochs: int = 5,
    batch_size: int = 512,
    weight_decay: float = 0.0,
) -> Classifier:
    """Oracle matching: fine-tune the model to the mean outputs of models that really never saw the forget rows.

    What no method that has to predict them can be expected to beat; it costs the retraining that unlearning is to save.

    Args:
        model: the trained model.
        forget, retain: the two parts of the training set.
        seed: of the retained rows, of their order, and of the retrained models.
        oracles: retrained models, or how many to train.
        train_epochs, train_learning_rate, train_batch_size: how they are trained: as the model itself was.
        forget_multiplier, retain_multiplier, loss, learning_rate, gamma, epochs, batch_size, weight_decay: as of "dmm";
            for "ce" the oracles' probabilities are averaged in place of their logits.

    Raises:
        ValueError: an option is out of range.
    """
    chosen = matching_set(forget, retain, forget_multiplier, retain_multiplier, seed)
    if isinstance(oracles, int):
        oracles = cached_ensemble(
            model,
            retain,
            oracles,
            epochs=train_epochs,
            learning_rate=train_learning_rate,
            batch_size=train_batch_size,
            seed=seed,
        )
    logits = oracles.logits(chosen)
    mean = logits.mean(0) if loss == "mse" else logits.softmax(-1).mean(0).log()
    members = match_logits(
        Ensemble.of([model]),
        chosen,
        mean[None],
        loss=loss,
        learning_rate=learning_rate,
        gamma=gamma,
        epochs=epochs,
        batch_size=batch_size,
        weight_decay=weight_decay,
        seed=seed,
    )
    return _matched(model, members, oracles=len(oracles), matched=len(chosen))
