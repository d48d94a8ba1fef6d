"""Label-agnostic forgetting: features to forget leave the distribution they had, the others keep theirs, no label read.

One autoencoder learns how features of all training rows lie, another how those of the forget rows do. Then two losses
alternate: retained features stay where the first can rebuild them, features to forget go where the second cannot; and
retained features keep the direction they had.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from demur.editing.feature_vae import Activation, FeatureVae, train_feature_vae
from demur.editing.registry import editor
from demur.errors import DemurError, UsageError
from demur.models.descent import batches, cross_entropies, descend
from demur.objectives.label_agnostic import laf_alignment_loss, laf_extractor_loss

if TYPE_CHECKING:
    from demur.data.labelled import Labelled
    from demur.models.classifier import Classifier

__all__ = ["laf"]


@editor("laf", paper="2404.00506", labels=False)
def laf(
    model: Classifier,
    forget: Labelled,
    retain: Labelled,
    *,
    seed: int = 0,
    epochs: int = 20,
    steps: int | None = None,
    lr_unlearn: float = 5e-5,
    lr_align: float = 1e-4,
    temperature: float = 20.0,
    latent: int = 8,
    vae_epochs: int = 10,
    vae_steps: int | None = None,
    vae_rate: float = 1e-3,
    kl_weight: float = 0.025,
    decoder_activation: Activation = None,
    feature_layer: str | None = None,
    batch_size: int = 32,
    repair: int | Labelled = 0,
) -> Classifier:
    """Label-agnostic forgetting, and with `repair` its variant for a few labelled rows (LAF+R).

    The model stays in evaluation mode throughout, and the layers above the features get no gradient. An epoch ends
    with the smaller set: a class of 100 rows makes 4 steps of 32, so `steps` is the surer measure. Keep `lr_align` at
    least twice `lr_unlearn`, else nothing holds the retained features.

    Args:
        model: the trained model.
        forget, retain: the two parts of the training set; their labels are not read.
        seed: of batches, autoencoders and codes.
        epochs: passes over the smaller set.
        steps: batches, in place of epochs.
        lr_unlearn, lr_align: of the two Adam optimisers that take turns: distribution and direction.
        temperature: τ of the alignment.
        latent: width of the autoencoders' codes.
        vae_epochs: passes of each autoencoder over its set.
        vae_steps: batches, in place of them.
        vae_rate, kl_weight, decoder_activation: of the autoencoders; "sigmoid" is what the paper's code does, None
            lets them rebuild features of any size.
        feature_layer: name of the module whose output are the features; the head's input by default.
        batch_size: rows in a batch, of each set.
        repair: afterwards the head alone learns from so many retain rows, drawn, or from these rows: their labels are
            read. 0 reads none.

    Returns:
        A changed copy; `facts` say how well each autoencoder rebuilds its own set (mean squared distance).

    Raises:
        UsageError: the feature layer or the activation is unknown, or no weight lies before the features.
        DemurError: the model's features are no numbers.
    """
    if decoder_activation not in (None, "sigmoid"):
        raise UsageError(f"decoder_activation must be sigmoid or none, not {decoder_activation!r}")
    if batch_size == 1 or len(forget) == 1:
        warnings.warn("laf compares a batch's forget rows with each other: with one row it cannot", stacklevel=2)
    edited = model.copied()
    edited.module.eval()
    blind = [data.with_labels(torch.zeros(len(data), dtype=torch.long)) for data in (retain, forget)]
    if not _features(edited, blind[0].batch(slice(0, 1))[0], feature_layer).requires_grad:
        raise UsageError(f"laf changes features, and those of {model.name} come before any weight: use another method")
    before = [_all_features(edited, data, feature_layer) for data in blind]
    known = [torch.cat(before), before[1]]
    torch.manual_seed(seed)
    vaes = [
        train_feature_vae(
            features,
            latent=latent,
            decoder_activation=decoder_activation,
            steps=vae_epochs * -(-len(features) // batch_size) if vae_steps is None else vae_steps,
            learning_rate=vae_rate,
            kl_weight=kl_weight,
            batch_size=batch_size,
            seed=(seed, number),
        )
        for number, features in enumerate(known)
    ]
    if steps is None:
        steps = epochs * -(-min(len(forget), len(retain)) // batch_size)
    distribution, direction = (torch.optim.Adam(edited.module.parameters(), lr=r) for r in (lr_unlearn, lr_align))
    for kept, left in itertools.islice(_pairs(len(retain), len(forget), batch_size, seed), steps):
        both = torch.cat([blind[0].batch(kept)[0], blind[1].batch(left)[0]])
        e_kept, e_left = _features(edited, both, feature_layer).split([len(kept), len(left)])
        _step(distribution, laf_extractor_loss(vaes[0](e_kept), e_kept, vaes[1](e_left), e_left))
        e_kept, e_left = _features(edited, both, feature_layer).split([len(kept), len(left)])
        _step(direction, laf_alignment_loss(e_kept, before[0][kept], e_left, before[1][left], temperature))
    edited.module.zero_grad(set_to_none=True)
    if repair:
        _repair(edited, retain, repair, lr_align, batch_size, seed)
    names = ("all rows", "forget rows")
    edited.facts |= {
        "steps": steps,
        "reconstruction": {name: _error(vae, e) for name, vae, e in zip(names, vaes, known, strict=True)},
    }
    return edited


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def _features(model: Classifier, inputs: Tensor, layer: str | None) -> Tensor:
    """(batch, features), with gradients."""
    if layer is None:
        return model.features_and_logits(inputs)[0]
    try:
        chosen = model.module.get_submodule(layer)
    except AttributeError:
        names = ", ".join(name for name, _ in model.module.named_modules() if name)
        raise UsageError(f"{model.name} has no layer {layer!r}: it has {names}") from None
    seen: list[Tensor] = []
    handle = chosen.register_forward_hook(lambda _, given, out: seen.append(out))
    try:
        model.logits(inputs)
    finally:
        handle.remove()
    if not seen or not isinstance(seen[0], Tensor):
        raise UsageError(f"layer {layer!r} of {model.name} gives no tensor: name one inside it")
    return seen[0].flatten(1)


@torch.no_grad()
def _all_features(model: Classifier, data: Labelled, layer: str | None, size: int = 1024) -> Tensor:
    parts = [_features(model, data.batch(slice(start, start + size))[0], layer) for start in range(0, len(data), size)]
    features = torch.cat(parts)
    if not bool(features.isfinite().all()):
        raise DemurError(f"features of {data.name} under {model.name} are no numbers: the model is broken")
    return features


def _pairs(retain: int, forget: int, size: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of both sets side by side, without end; an epoch ends with the smaller set."""
    for epoch in itertools.count():
        yield from zip(batches(retain, size, (seed, 2, epoch)), batches(forget, size, (seed, 3, epoch)), strict=False)


def _repair(
    edited: Classifier, retain: Labelled, repair: int | Labelled, rate: float, batch_size: int, seed: int
) -> None:
    """One epoch of cross entropy for the head alone."""
    labelled = retain.subset(next(batches(len(retain), repair, (seed, 4)))) if isinstance(repair, int) else repair
    descend(
        edited,
        lambda epoch: cross_entropies(edited, labelled, batch_size, (seed, 5, epoch)),
        epochs=1,
        learning_rate=rate,
        optimizer="adam",
        weight_decay=0.0,
        parameters=list(edited.head_layer.parameters()),
        training=False,
    )


@torch.no_grad()
def _error(vae: FeatureVae, features: Tensor) -> float:
    return float((vae(features) - features).square().sum(1).mean())
