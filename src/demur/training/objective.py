"""The objective of a run: a loss on what is to change, and perhaps one on what is to stay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from demur.errors import UsageError
from demur.models.scored import Scored
from demur.objectives import decoupled, objectives, prompt_decouple_loss, roles
from demur.registry import Component

__all__ = ["Objective"]


@dataclass(frozen=True)
class Objective:
    """L = forget_weight · L_main + retain_weight · L_retain + decouple_weight · L_decoupled.

    Attributes:
        main: the loss on the rows to forget, prefer or learn.
        retain: the loss on the rows to keep, or None.
        options: options of `main`.
        retain_options: options of `retain`.
        forget_weight, retain_weight: weights of the two.
        decouple_weight: weight of the likelihood of decoupled rows; 0 leaves them out.
    """

    main: Component
    retain: Component | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    retain_options: Mapping[str, Any] = field(default_factory=dict)
    forget_weight: float = 1.0
    retain_weight: float = 1.0
    decouple_weight: float = 0.0

    @classmethod
    def make(
        cls,
        name: str,
        options: Mapping[str, Any] | None = None,
        retain: str | None = None,
        forget_weight: float | None = None,
        retain_weight: float | None = None,
        decouple_weight: float = 0.0,
    ) -> Objective:
        """Look up the names; what is not given is what the method's paper uses.

        Args:
            name: of the main loss.
            options: of the main loss and of the retain loss; an option that both have goes to both.
            retain: name of the retain loss, "none", or None for the method's own.
            forget_weight, retain_weight: None for the method's own.
            decouple_weight: of the decoupled rows; 0 leaves them out.

        Raises:
            UsageError: a name or an option is unknown, an option is of the wrong type, or the retain loss is none.
        """
        main = objectives.get(name)
        if main.facts["forget_only"] and (retain not in (None, "none") or retain_weight):
            raise UsageError(
                f"objective {name!r} is for where nothing but the forget set may be used: "
                "it takes no retain objective; leave it out or choose another objective"
            )
        retain = main.facts["retain"] if retain is None else retain
        partner = None if retain in (None, "none") else objectives.get(retain)
        if partner is not None and roles(partner) != ("retain",):
            raise UsageError(f"{retain} is no retain objective: it works on {', '.join(roles(partner))} rows")
        default_forget, default_retain = main.facts["weights"]
        return cls(
            main,
            partner,
            *_split_options(main, partner, options or {}),
            default_forget if forget_weight is None else forget_weight,
            default_retain if retain_weight is None else retain_weight,
            decouple_weight,
        )

    @property
    def roles(self) -> tuple[str, ...]:
        """The batches it needs."""
        keeps = ["retain"] if self.retain is not None and self.retain_weight > 0 else []
        return (*roles(self.main), *keeps, *(["decoupled"] if self.decouple_weight else []))

    @property
    def _terms(self) -> list[tuple[Component, Mapping[str, Any], tuple[str, ...]]]:
        """The losses in use: each with its options and the batches it reads."""
        terms = [(self.main, self.options, roles(self.main))]
        if self.retain is not None and self.retain_weight > 0:
            terms.append((self.retain, self.retain_options, ("retain",)))
        if self.decouple_weight:
            terms.append((objectives.get("decoupled"), {}, ("decoupled",)))
        return terms

    @property
    def reference_roles(self) -> tuple[str, ...]:
        """The batches that must also be scored under the reference model."""
        return tuple(role for term, _, read in self._terms if term.facts["reference"] for role in read)

    @property
    def distribution_roles(self) -> tuple[str, ...]:
        """Those of them of which more is needed than the labels' log-probabilities."""
        return tuple(
            role for term, _, read in self._terms if term.facts["reference"] == "distribution" for role in read
        )

    @property
    def layers(self) -> tuple[int, ...]:
        """The decoder layers whose outputs it reads."""
        chosen = ({**term.options, **options}.get("layer") for term, options, _ in self._terms)
        return tuple(dict.fromkeys(layer for layer in chosen if layer is not None))

    @property
    def logits(self) -> bool:
        """Whether it reads anything beyond those layers."""
        return any(term.facts["logits"] for term, _, _ in self._terms)

    def __call__(
        self, batches: Mapping[str, Scored], retain_weight: float | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and its parts by name, detached.

        Args:
            batches: by role, scored under the model.
            retain_weight: the retain loss's weight of the moment, where it is not fixed.

        Raises:
            ValueError: an option is out of range.
        """
        main = self.main.function(*(batches[r] for r in roles(self.main)), **self.options)
        parts = {self.main.name: main.detach()}
        loss = self.forget_weight * main
        if "retain" in self.roles and self.retain is not None:
            keep = self.retain.function(batches["retain"], **self.retain_options)
            parts[f"retain_{self.retain.name}"] = keep.detach()
            loss = loss + (self.retain_weight if retain_weight is None else retain_weight) * keep
        if "decoupled" in self.roles:
            normal = decoupled(batches["decoupled"])
            parts["decoupled"] = normal.detach()
            loss = prompt_decouple_loss(loss, normal, self.decouple_weight)
        return loss, parts


def _split_options(
    main: Component, retain: Component | None, given: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options of both losses: one that both have is the same for both."""
    if retain is None:
        return main.typed(given), {}
    own = main.typed({name: v for name, v in given.items() if name in main.options or name not in retain.options})
    shared = {**main.options, **given}
    return own, retain.typed({name: v for name, v in shared.items() if name in retain.options})
