"""Training on preference pairs on a page: what became of both answers, step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from demur.reports.evidence import Evidence
from demur.reports.step_curves import ends_of, step_curves
from demur.reports.tables import number

__all__ = ["DisplacementView", "displacement_views"]

_SIDES = {"chosen": "chosen_logps", "rejected": "rejected_logps"}


@dataclass(frozen=True)
class DisplacementView:
    """The curves of one training run.

    Attributes:
        label: the run, with the stage where it has several.
        sentence: what became of both answers.
        tone: "bad" where the chosen answers became less likely, else "good".
        figure: the curves.
        caption: what they show.
    """

    label: str
    sentence: str
    tone: str
    figure: Markup
    caption: str


def displacement_views(evidence: Evidence) -> list[DisplacementView]:
    """A view of every training on preference pairs that the runs hold."""
    return [
        _view(run.label if len(run.preference_steps) == 1 else f"{run.label}, {stage}", steps)
        for run in evidence.runs
        for stage, steps in run.preference_steps.items()
    ]


def _view(label: str, steps: Sequence[Mapping[str, Any]]) -> DisplacementView:
    quarter, ends = ends_of(steps, _SIDES)
    told = " and ".join(f"{side} from {number(a)} to {number(b)}" for side, (a, b) in ends.items())
    fell = {side: last < first for side, (first, last) in ends.items()}
    if fell["chosen"]:
        sentence = f"made the chosen answers less likely too, {told}: the probability went elsewhere."
    else:
        sentence = f"made the chosen answers no less likely, {told}."
    figure = step_curves(
        steps,
        _SIDES,
        scale="Mean log-probability of an answer (nats)",
        title=f"Both answers' log-probability in training, {label}",
        description=told,
    )
    caption = (
        "Mean over the pairs of a step, so neighbours differ by chance too. The numbers compare the means of the first "
        f"and of the last {quarter} of {len(steps)} logged steps."
    )
    return DisplacementView(label, sentence, "bad" if fell["chosen"] else "good", figure, caption)
