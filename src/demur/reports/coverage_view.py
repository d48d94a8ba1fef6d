"""The coverage suite on a page: pass@k over k, and how confident greedy answers are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from demur.reports.axes import Scale
from demur.reports.evidence import Evidence, Run
from demur.reports.plots import Line, Mark, lines
from demur.reports.tables import number
from demur.runs import Result

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CoverageView", "coverage_views"]

_TABLE = "coverage_questions"
_PASS = "coverage/pass_at_"
_ROLES = {"run": "this model", "reference": "reference", "before": "before"}
_BINS = 10


@dataclass(frozen=True)
class CoverageView:
    """One run's figures.

    Attributes:
        label: the run.
        figures: plots with captions.
    """

    label: str
    figures: Sequence[tuple[Markup, str]]


def coverage_views(evidence: Evidence) -> list[CoverageView]:
    """A view of each run that was audited with the coverage suite."""
    views = []
    for run in evidence.runs:
        curves = {role: _curve(run, role) for role in _ROLES}
        table = run.folder.samples(_TABLE)
        if curves["run"] and table is not None:
            views.append(CoverageView(run.label, [_passes(curves), _confidence(table)]))
    return views


def _curve(run: Run, role: str) -> list[tuple[int, Result]]:
    """pass@k in the order of k."""
    found = {int(m.removeprefix(_PASS)): r for m, r in run.results.get(role, {}).items() if m.startswith(_PASS)}
    return sorted((k, result) for k, result in found.items() if result.value is not None)


def _passes(curves: dict[str, list[tuple[int, Result]]]) -> tuple[Markup, str]:
    series, marks, told = [], [], []
    for place, (role, label) in enumerate(_ROLES.items()):
        points = [(math.log2(k), float(result.value or 0.0)) for k, result in curves[role]]
        if not points:
            continue
        names = [f"{label}: pass@{k} {number(result.value)}" for k, result in curves[role]]
        series.append(Line(label, points, place, names))
        told.append(f"{label} from {number(points[0][1])} to {number(points[-1][1])}")
        if role == "run":
            marks = [
                Mark("", x, y, None, None, result.low, result.high, place, name=name)
                for (x, y), (_, result), name in zip(points, curves[role], names, strict=True)
            ]
    title = "One of k answers right"
    across = [x for line in series for x, _ in line.points]
    drawn = lines(
        series,
        Scale.around("Answers drawn, as a power of two →", across, 0.0, None),
        Scale.around("Share of questions", []),
        title=title,
        description="; ".join(told),
        marks=marks,
    )
    most = curves["run"][-1][0]
    return Markup(drawn), f"{title}, k from 1 to {most}: {'; '.join(told)}."


def _confidence(table: pd.DataFrame) -> tuple[Markup, str]:
    """How greedy answers' probabilities are spread over ten bins."""
    series, told = [], []
    edges = np.linspace(0, 1, _BINS + 1)
    for place, (role, label) in enumerate(_ROLES.items()):
        found = table[table["role"] == role]["confidence"].dropna().to_numpy(dtype=float)
        if not len(found):
            continue
        shares = np.histogram(found.clip(0, 1), edges)[0] / len(found)
        points, names = [], []
        for low, high, share in zip(edges[:-1], edges[1:], shares, strict=True):
            points += [(float(low), float(share)), (float(high), float(share))]
            names += [f"{label}: {share:.0%} between {low:.1f} and {high:.1f}"] * 2
        series.append(Line(label, points, place, names))
        told.append(f"{label} {number(float(found.mean()))} on average, {shares[-1]:.0%} above {edges[-2]:.1f}")
    title = "Confidence of greedy answers"
    highest = [y for line in series for _, y in line.points]
    drawn = lines(
        series,
        Scale.around("Probability of the greedy answer →", []),
        Scale.around("Share of questions", highest, 0.0, None),
        title=title,
        description="; ".join(told),
    )
    return Markup(drawn), f"{title}: {'; '.join(told)}."
