"""The registry of editing methods, and the one way to call them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from demur.errors import DemurError, UsageError
from demur.registry import Component, Registry

if TYPE_CHECKING:
    from demur.data.labelled import Labelled
    from demur.models.classifier import Classifier

__all__ = ["PROBABILISTIC", "edit", "editor", "editors", "require_kind"]

_FINETUNE = "demur.editing.finetune"
_BUILTIN = {
    "amnesiac": "demur.editing.relabel",
    "bad-teacher": "demur.editing.teachers",
    "boundary-expand": "demur.editing.boundary",
    "boundary-shrink": "demur.editing.boundary",
    "cf-k": "demur.editing.layers",
    "dmm": "demur.editing.matching",
    "downdate": "demur.editing.linear",
    "eu-k": "demur.editing.layers",
    "fisher": "demur.editing.fisher_forgetting",
    "ft": _FINETUNE,
    "ga": _FINETUNE,
    "head-mask": "demur.editing.pseudo_label",
    "influence": "demur.editing.influence",
    "l1-sparse": _FINETUNE,
    "laf": "demur.editing.laf",
    "neggrad+": _FINETUNE,
    "newton": "demur.editing.linear",
    "om": "demur.editing.matching",
    "pseudo-label": "demur.editing.pseudo_label",
    "retrain": _FINETUNE,
    "rl": "demur.editing.relabel",
    "salun": "demur.editing.relabel",
    "scrub": "demur.editing.teachers",
    "ssd": "demur.editing.ssd",
    "unsir": "demur.editing.unsir",
}

editors = Registry("editing method", "demur.editors", _BUILTIN)
"""All methods of `edit`. Third parties add theirs as entry points in the group `demur.editors`."""


PROBABILISTIC = ("network", "logistic")
"""Kinds of classifier that softmax cross entropy makes sense of."""


def editor(
    name: str, *, paper: str, labels: bool = True, kinds: Sequence[str] = ("network",)
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """File a method: a function of (model, forget, retain), of `seed` and of options, that gives a changed copy.

    Args:
        name: used in Python, in recipe files and on the command line.
        paper: arXiv id.
        labels: whether it reads labels.
        kinds: the kinds of classifier that it can edit (`Classifier.kind`).
    """
    return editors.register(name, paper=paper, labels=labels, kinds=tuple(kinds))


def edit(
    name: str, model: Classifier, forget: Labelled, retain: Labelled, *, seed: int = 0, **options: Any
) -> Classifier:
    """Make a classifier forget.

    Args:
        name: of the method.
        model: the trained model; it is left as it is.
        forget: rows to forget.
        retain: rows to keep.
        seed: decides everything that is drawn.
        options: the method's own.

    Returns:
        A copy in evaluation mode; its `facts` hold the method, the seconds that it took, and what the method says.

    Raises:
        UsageError: the method or an option is unknown, it is not for this kind of classifier, or a set is empty.
        DemurError: the method broke the model: its weights are no numbers.
    """
    component = editors.get(name)
    component.check_options(options)
    require_kind(component, model)
    for data in (forget, retain):
        if not len(data):
            raise UsageError(f"{data.name} is empty")
    torch.manual_seed(seed)
    started = time.perf_counter()
    try:
        edited: Classifier = component.function(model, forget, retain, seed=seed, **options)
    except ValueError as error:
        raise UsageError(f"method {name!r}: {error}") from error
    edited.facts |= {"method": name, "seconds": time.perf_counter() - started}
    edited.module.eval()
    if not all(bool(weight.isfinite().all()) for weight in edited.module.parameters()):
        raise DemurError(f"method {name!r} broke the model: its weights are no numbers; try a lower learning rate")
    return edited


def require_kind(component: Component, model: Classifier) -> None:
    """Refuse a method that cannot edit this kind of classifier.

    Raises:
        UsageError: the message names the methods that can.
    """
    kinds = component.facts["kinds"]
    if model.kind not in kinds:
        others = [name for name in editors.names() if model.kind in editors.get(name).facts["kinds"]]
        raise UsageError(
            f"method {component.name!r} edits a {' or a '.join(kinds)} model, and {model.name} is a {model.kind} model:"
            f" use {', '.join(others)}"
        )
