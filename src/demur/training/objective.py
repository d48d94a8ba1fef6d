"""The objective of a run: a loss on what is to change, and perhaps one on what is to stay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from demur.errors import UsageError
from demur.models.scored import Scored
from demur.objectives import objectives, roles
from demur.registry import Component

__all__ = ["Objective"]


@dataclass(frozen=True)
class Objective:
    """L = forget_weight · L_main + retain_weight · L_retain.

    Attributes:
        main: the loss on the rows to forget, prefer or learn.
        retain: the loss on the rows to keep, or None.
        options: options of `main`.
        forget_weight, retain_weight: weights of the two.
    """

    main: Component
    retain: Component | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    forget_weight: float = 1.0
    retain_weight: float = 1.0

    @classmethod
    def make(
        cls,
        name: str,
        options: Mapping[str, Any] | None = None,
        retain: str | None = None,
        forget_weight: float | None = None,
        retain_weight: float | None = None,
    ) -> Objective:
        """Look up the names; what is not given is what the method's paper uses.

        Args:
            name: of the main loss.
            options: of the main loss.
            retain: name of the retain loss, "none", or None for the method's own.
            forget_weight, retain_weight: None for the method's own.

        Raises:
            UsageError: a name or an option is unknown, an option is of the wrong type, or the retain loss is none.
        """
        main = objectives.get(name)
        given = _typed(main, options or {})
        retain = main.facts["retain"] if retain is None else retain
        partner = None if retain in (None, "none") else objectives.get(retain)
        if partner is not None and roles(partner) != ("retain",):
            raise UsageError(f"{retain} is no retain objective: it works on {', '.join(roles(partner))} rows")
        default_forget, default_retain = main.facts["weights"]
        return cls(
            main,
            partner,
            given,
            default_forget if forget_weight is None else forget_weight,
            default_retain if retain_weight is None else retain_weight,
        )

    @property
    def roles(self) -> tuple[str, ...]:
        """The batches it needs."""
        return (*roles(self.main), *(["retain"] if self.retain is not None and self.retain_weight > 0 else []))

    @property
    def reference_roles(self) -> tuple[str, ...]:
        """The batches that must also be scored under the reference model."""
        main = roles(self.main) if self.main.facts["reference"] else ()
        keeps = "retain" in self.roles and self.retain is not None and self.retain.facts["reference"]
        return (*main, *(["retain"] if keeps else []))

    def __call__(self, batches: Mapping[str, Scored]) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and its parts by name, detached.

        Raises:
            ValueError: an option is out of range.
        """
        main = self.main.function(*(batches[r] for r in roles(self.main)), **self.options)
        parts = {self.main.name: main.detach()}
        loss = self.forget_weight * main
        if "retain" in self.roles and self.retain is not None:
            keep = self.retain.function(batches["retain"])
            parts[f"retain_{self.retain.name}"] = keep.detach()
            loss = loss + self.retain_weight * keep
        return loss, parts


_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}


def _typed(component: Component, given: Mapping[str, Any]) -> dict[str, Any]:
    """Options in the types of their defaults: YAML reads `1e-1` as a word."""
    component.check_options(given)
    out = {}
    for name, value in given.items():
        kind = type(component.options[name])
        try:
            typed = float(value) if kind is float else int(value) if kind is int else value
            fits = kind not in _KINDS or (isinstance(typed, kind) and (typed == value or kind is float))
        except (TypeError, ValueError):
            fits = False
        if not fits or (kind is not bool and isinstance(value, bool)):
            raise UsageError(f"option {name!r} of {component.name} must be {_KINDS[kind]}, not {value!r}")
        out[name] = typed
    return out
