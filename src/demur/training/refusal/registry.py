"""Methods that teach refusal or abstention: from plain rows to the stages of training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from demur.registry import Registry

if TYPE_CHECKING:
    from datasets import Dataset

    from demur.models.language_model import LanguageModel

__all__ = ["Lesson", "Stage", "refusal_method", "refusal_methods"]

_PLAIN = "demur.training.refusal.plain"
_BUILTIN = {
    "dart": "demur.training.refusal.dart",
    "dco": "demur.training.refusal.dco",
    "derta": "demur.training.refusal.derta",
    "r-tuning": "demur.training.refusal.r_tuning",
    "honest-helpful": "demur.training.refusal.honest_helpful",
    "oyster": "demur.training.refusal.oyster",
    "redi": _PLAIN,
    "refusal-tokens": "demur.training.refusal.refusal_tokens",
    "sft": _PLAIN,
}

refusal_methods = Registry("refusal method", "demur.refusal_methods", _BUILTIN)
"""All methods of `demur refuse`. Third parties add theirs as entry points in the group `demur.refusal_methods`."""


@dataclass(frozen=True)
class Lesson:
    """What a method works from.

    Attributes:
        rows: the plain rows.
        source: where they were read from, for messages.
        seed: decides every draw.
        load: loads the model that is to be taught.
        progress: called with steps done, steps in all, and what is going on.
    """

    rows: Dataset
    source: str
    seed: int
    load: Callable[[], LanguageModel]
    progress: Callable[[int, int, str], Any] = lambda done, total, what: None

    @cached_property
    def _model(self) -> LanguageModel:
        return self.load()

    def model(self) -> LanguageModel:
        """The model as it is before anything is taught, loaded at the first call."""
        return self._model


@dataclass(frozen=True)
class Stage:
    """One training run among those that a method is made of.

    Attributes:
        rows: what it trains on.
        objective: name of the loss.
        options: the loss's options.
        settings: training settings that the method fixes for this stage; what the user gave wins.
        prepare: changes the model before the stage, for instance by new tokens.
        files: name → content, written as JSON beside the weights that the stage ends with.
        notes: what the user should know of the rows, a sentence each.
    """

    rows: Dataset
    objective: str = "sft"
    options: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    prepare: Callable[[LanguageModel], Any] | None = None
    files: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()


def refusal_method(
    name: str,
    *,
    paper: str,
    columns: Sequence[str] = ("prompt", "response"),
    model: bool = False,
    suite: str = "refusal",
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """File a method: a function of a `Lesson` and of keyword options that gives its stages.

    Args:
        name: used in Python, in recipe files and on the command line.
        paper: arXiv id.
        columns: those that the rows must have.
        model: whether the method asks the model itself while it builds its rows.
        suite: the audit suite that measures what it teaches.
    """
    return refusal_methods.register(name, paper=paper, columns=tuple(columns), model=model, suite=suite)
