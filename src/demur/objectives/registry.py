"""The registry of objectives."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from typing import Any, Literal, TypeVar

from demur.objectives.scored import Scored
from demur.registry import Component, Registry

__all__ = ["objective", "objectives", "roles"]

F = TypeVar("F", bound=Callable[..., Any])

Intention = Literal["removal", "suppression"]
Level = Literal["parameters", "representation", "logits", "input", "output"]

objectives = Registry("objective", group="demur.objectives")


def objective(
    name: str,
    *,
    paper: str | None = None,
    reference: bool | Literal["distribution"] = False,
    retain: str | None = None,
    weights: tuple[float, float] = (1.0, 1.0),
    intention: Intention | None = None,
    level: Level | None = None,
    forget_only: bool = False,
    logits: bool = True,
    generated: bool = False,
    limit: bool = False,
) -> Callable[[F], F]:
    """Register a function from scored batches to a scalar loss.

    The function's parameters without a default are the batches it needs, named by their role (`forget`, `retain`,
    `alternate`, `chosen`, `rejected`, `examples`); those with one are its options. An option called `layer` is the
    decoder layer whose outputs it may ask for; a retain term gets the options that it shares with the main loss.

    Args:
        name: its name in Python, recipe files and on the command line.
        paper: arXiv id of its source.
        reference: whether it reads `.reference` of a batch; "distribution" where it needs more of it than the labels'
            log-probabilities and the outputs of `layer`.
        retain: the retain term that its paper adds to it, used unless another is asked for.
        weights: the paper's weights of the forget and of the retain term.
        intention: what an unlearning method claims: that the knowledge is gone ("removal"), or that the model does
            not show it ("suppression"); None for what does not unlearn. An audit judges a run by what it claims.
        level: where the method acts. Both after the taxonomy of Ren et al. 2025, arXiv 2506.09227.
        forget_only: whether it is meant for where neither retain rows nor a reference may be used, and so refuses both.
        logits: whether it reads anything of the vocabulary's distribution; where nothing in a run does, forward
            passes end at `layer`.
        generated: whether its alternate answers are each row's own, made by the model, and not templates.
        limit: whether its retain weight is a multiplier that holds the retain loss below a limit.
    """

    def register(function: F) -> F:
        facts = {"paper": paper, "reference": reference, "retain": retain, "weights": weights}
        facts |= {"intention": intention, "level": level, "forget_only": forget_only}
        facts |= {"logits": logits, "generated": generated, "limit": limit}
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
