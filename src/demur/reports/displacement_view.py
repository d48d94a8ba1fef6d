"""Training on preference pairs on a page: what became of both answers, step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from demur.reports.axes import Scale
from demur.reports.evidence import Evidence
from demur.reports.plots import Line, lines
from demur.reports.tables import number

__all__ = ["DisplacementView", "displacement_views"]

_SIDES = {"chosen": "chosen_logps", "rejected": "rejected_logps"}
_POINTS = 100  # of a curve; more could not be told apart


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
    quarter = max(1, len(steps) // 4)
    ends: dict[str, tuple[float, float]] = {}
    for side, field in _SIDES.items():
        values = [float(step[field]) for step in steps]
        ends[side] = sum(values[:quarter]) / quarter, sum(values[-quarter:]) / quarter
    told = " and ".join(f"{side} from {number(a)} to {number(b)}" for side, (a, b) in ends.items())
    fell = {side: last < first for side, (first, last) in ends.items()}
    if fell["chosen"]:
        sentence = f"made the chosen answers less likely too, {told}: the probability went elsewhere."
    else:
        sentence = f"made the chosen answers no less likely, {told}."
    count = min(_POINTS, len(steps))
    shown = [steps[round(i * (len(steps) - 1) / max(1, count - 1))] for i in range(count)]
    series = [
        Line(
            side,
            [(float(step["step"]), float(step[field])) for step in shown],
            place,
            [f"step {step['step']}: {number(float(step[field]))}" for step in shown],
        )
        for place, (side, field) in enumerate(_SIDES.items())
    ]
    points = [point for line in series for point in line.points]
    figure = lines(
        series,
        Scale.around("Step", [x for x, _ in points], low=0.0, high=None),
        Scale.around("Mean log-probability of an answer (nats)", [y for _, y in points], low=None, high=None),
        title=f"Both answers' log-probability in training, {label}",
        description=told,
    )
    caption = (
        "Mean over the pairs of a step, so neighbours differ by chance too. The numbers compare the means of the first "
        f"and of the last {quarter} of {len(steps)} logged steps."
    )
    return DisplacementView(label, sentence, "bad" if fell["chosen"] else "good", Markup(figure), caption)
