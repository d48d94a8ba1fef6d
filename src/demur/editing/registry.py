"""The registry of editing methods, and the one way to call them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from demur.errors import DemurError, UsageError
from demur.registry import Registry

if TYPE_CHECKING:
    from demur.data.labelled import Labelled
    from demur.models.classifier import Classifier

__all__ = ["edit", "editor", "editors"]

_FINETUNE = "demur.editing.finetune"
_BUILTIN = {
    "ft": _FINETUNE,
    "ga": _FINETUNE,
    "l1-sparse": _FINETUNE,
    "neggrad+": _FINETUNE,
    "retrain": _FINETUNE,
    "ssd": "demur.editing.ssd",
}

editors = Registry("editing method", "demur.editors", _BUILTIN)
"""All methods of `edit`. Third parties add theirs as entry points in the group `demur.editors`."""


def editor(name: str, *, paper: str, labels: bool = True) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """File a method: a function of (model, forget, retain), of `seed` and of options, that gives a changed copy.

    Args:
        name: used in Python, in recipe files and on the command line.
        paper: arXiv id.
        labels: whether it reads labels.
    """
    return editors.register(name, paper=paper, labels=labels)


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
        UsageError: the method or an option is unknown, or a set is empty.
        DemurError: the method broke the model: its weights are no numbers.
    """
    component = editors.get(name)
    component.check_options(options)
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
