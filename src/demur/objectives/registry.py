"""The registry of objectives."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from typing import Any, TypeVar

from demur.objectives.scored import Scored
from demur.registry import Component, Registry

__all__ = ["objective", "objectives", "roles"]

F = TypeVar("F", bound=Callable[..., Any])

objectives = Registry("objective", group="demur.objectives")


def objective(
    name: str,
    *,
    paper: str | None = None,
    reference: bool = False,
    retain: str | None = None,
    weights: tuple[float, float] = (1.0, 1.0),
) -> Callable[[F], F]:
    """Register a function from scored batches to a scalar loss.

    The function's parameters without a default are the batches it needs, named by their role (`forget`, `retain`,
    `alternate`, `chosen`, `rejected`, `examples`); those with one are its options.

    Args:
        name: its name in Python, recipe files and on the command line.
        paper: arXiv id of its source.
        reference: whether it reads `.reference` of a batch.
        retain: the retain term that its paper adds to it, used unless another is asked for.
        weights: the paper's weights of the forget and of the retain term.
    """

    def register(function: F) -> F:
        facts = {"paper": paper, "reference": reference, "retain": retain, "weights": weights}
        return typing.cast("F", objectives.register(name, **facts)(function))

    return register


def roles(component: Component) -> tuple[str, ...]:
    """The batches that an objective needs, by role.

    Raises:
        TypeError: a parameter without a default is not annotated as `Scored`.
    """
    hints = typing.get_type_hints(component.function)
    names = [
        p.name
        for p in inspect.signature(component.function).parameters.values()
        if p.default is inspect.Parameter.empty
    ]
    for name in names:
        if hints.get(name) is not Scored:
            raise TypeError(f"objective {component.name!r}: parameter {name!r} is neither a Scored nor has a default")
    return tuple(names)
