"""Training on rows of which some have one word as their label everywhere: what share of the loss they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from demur.reports.evidence import Evidence
from demur.reports.step_curves import ends_of, step_curves
from demur.reports.tables import number

__all__ = ["TargetsView", "targets_views"]

_PARTS = {"rows with a target word": "target_part", "other rows": "other_part"}


@dataclass(frozen=True)
class TargetsView:
    """The parts of the loss of one training run.

    Attributes:
        label: the run, with the stage where it has several.
        sentence: what share the rows with a target make at either end.
        figure: both parts, step by step.
        caption: what they show.
    """

    label: str
    sentence: str
    figure: Markup
    caption: str


def targets_views(evidence: Evidence) -> list[TargetsView]:
    """A view of every training that the runs hold in which some rows have targets."""
    return [
        _view(run.label if len(run.target_steps) == 1 else f"{run.label}, {stage}", steps)
        for run in evidence.runs
        for stage, steps in run.target_steps.items()
    ]


def _view(label: str, steps: Sequence[Mapping[str, Any]]) -> TargetsView:
    quarter, ends = ends_of(steps, _PARTS)
    shares = []
    for target, other in zip(*ends.values(), strict=True):
        shares.append(f"{target / (target + other):.0%}" if target + other > 0 else "nothing")
    told = " and ".join(f"{name} from {number(a)} to {number(b)}" for name, (a, b) in ends.items())
    figure = step_curves(
        steps,
        _PARTS,
        scale="Part of the loss (nats)",
        title=f"Parts of the loss in training, {label}",
        description=told,
    )
    caption = (
        f"The two parts add up to the loss: {told}. The numbers compare the means of the first and of the last "
        f"{quarter} of {len(steps)} logged steps."
    )
    sentence = f"had {shares[0]} of its loss from rows with a target word at first, and {shares[1]} at the end."
    return TargetsView(label, sentence, figure, caption)
