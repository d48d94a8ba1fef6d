"""Methods that train on rows as they come: imitation, any preference loss, and right traces before wrong ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from demur.data.builders.preferences import chosen_rows, preference_rows
from demur.errors import UsageError
from demur.objectives import objectives, roles
from demur.training.inputs import PREFERENCE_ROLES
from demur.training.refusal.registry import Lesson, Stage, refusal_method

__all__ = ["by_objective", "is_taught_by", "redi", "sft"]


@refusal_method("sft", paper="2203.02155")
def sft(lesson: Lesson) -> list[Stage]:
    """Imitation of the wanted responses.

    Args:
        lesson: rows with `prompt` and `response`.
    """
    return [Stage(lesson.rows)]


@refusal_method("redi", paper="2505.24850", columns=("prompt",))
def redi(lesson: Lesson, *, alpha: float = 0.8, sft_epochs: int = 0) -> list[Stage]:
    """Reinforcement distillation: imitation of right traces, then pairs with the wrong ones pushed more gently.

    Args:
        lesson: pairs, as for `preference_rows`.
        alpha: weight of the wrong traces' log-probability, in [0, 1].
        sft_epochs: passes of the first stage; 0 for as many as of the second.
    """
    pairs = preference_rows(lesson.rows)
    first = {"epochs": sft_epochs} if sft_epochs else {}
    return [Stage(chosen_rows(pairs), settings=first), Stage(pairs, "redi", {"alpha": alpha})]


def is_taught_by(name: str) -> bool:
    """Whether an objective trains on rows or on pairs, so that it is a method by itself."""
    if name not in objectives.names():
        return False
    needed = roles(objectives.get(name))
    return needed == ("examples",) or (bool(needed) and set(needed) <= set(PREFERENCE_ROLES))


def by_objective(lesson: Lesson, name: str, options: Mapping[str, Any]) -> list[Stage]:
    """One stage of an objective on the rows, or on the pairs that they make.

    Raises:
        UsageError: the objective has no such option, or no pairs can be made.
    """
    component = objectives.get(name)
    component.check_options(options)
    if roles(component) == ("examples",):
        return [Stage(lesson.rows, name, options)]
    try:
        return [Stage(preference_rows(lesson.rows), name, options)]
    except UsageError as error:
        raise UsageError(f"{lesson.source}: {error}") from error
