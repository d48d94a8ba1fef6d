"""Quantities that a training run logs step by step, as curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from demur.reports.axes import Scale
from demur.reports.plots import Line, lines
from demur.reports.tables import number

__all__ = ["ends_of", "step_curves"]

_POINTS = 100  # of a curve; more could not be told apart


def ends_of(
    steps: Sequence[Mapping[str, Any]], fields: Mapping[str, str]
) -> tuple[int, dict[str, tuple[float, float]]]:
    """The mean of each quantity over the first quarter of the steps, and over the last.

    Args:
        steps: logged steps, in order.
        fields: what a quantity is called → its field.

    Returns:
        Steps in a quarter, and the two means by name.
    """
    quarter = max(1, len(steps) // 4)
    out = {}
    for name, field in fields.items():
        values = [float(step[field]) for step in steps]
        out[name] = sum(values[:quarter]) / quarter, sum(values[-quarter:]) / quarter
    return quarter, out


def step_curves(
    steps: Sequence[Mapping[str, Any]], fields: Mapping[str, str], *, scale: str, title: str, description: str
) -> Markup:
    """A curve a quantity over the steps; long runs are thinned.

    Args:
        steps, fields: as for `ends_of`.
        scale: what the vertical axis says.
        title, description: of the figure.
    """
    count = min(_POINTS, len(steps))
    shown = [steps[round(i * (len(steps) - 1) / max(1, count - 1))] for i in range(count)]
    series = [
        Line(
            name,
            [(float(step["step"]), float(step[field])) for step in shown],
            place,
            [f"step {step['step']}: {number(float(step[field]))}" for step in shown],
        )
        for place, (name, field) in enumerate(fields.items())
    ]
    points = [point for line in series for point in line.points]
    return Markup(
        lines(
            series,
            Scale.around("Step", [x for x, _ in points], low=0.0, high=None),
            Scale.around(scale, [y for _, y in points], low=None, high=None),
            title=title,
            description=description,
        )
    )
