"""Two suites on a page: what is corrected as more bad rows are found, and how hard forget sets are to forget."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from demur.reports.axes import Scale
from demur.reports.evidence import Evidence
from demur.reports.plots import Line, Mark, lines, scatter
from demur.reports.tables import number

__all__ = ["FiguresView", "corrective_views", "worst_case_views"]

_CURVE, _SETS = "corrective_curve", "worst_case_sets"
_NAMED = ("worst", "easiest", "ranking")
_FLOOR = 1e-4  # of losses on the logarithmic axis


@dataclass(frozen=True)
class FiguresView:
    """One run's figures.

    Attributes:
        label: the run.
        figures: plots with captions.
    """

    label: str
    figures: Sequence[tuple[Markup, str]]


def corrective_views(evidence: Evidence) -> list[FiguresView]:
    """A view of each run that was audited with the corrective suite."""
    views = []
    for run in evidence.runs:
        table = run.folder.samples(_CURVE)
        if table is not None:
            metrics = ("corrected_accuracy", "retained_accuracy")
            views.append(
                FiguresView(run.label, [_curve(table[table["metric"] == metric], metric) for metric in metrics])
            )
    return views


def _curve(table, metric: str) -> tuple[Markup, str]:  # type: ignore[no-untyped-def]
    """One metric over the share that was found, a line a method; all begin at the model as it was trained."""
    start = float(table.loc[table["method"] == "original", "value"].iloc[0])
    series, marks, told = [], [], []
    for place, (method, rows) in enumerate(table[table["method"] != "original"].groupby("method", sort=False)):
        ordered = rows.sort_values("ratio")
        points = [(0.0, start), *zip(ordered["ratio"], ordered["value"], strict=True)]
        names = ["as trained", *(f"{ratio:.0%} found: {number(value)}" for ratio, value in points[1:])]
        series.append(Line(str(method), points, place, names))
        marks += [
            Mark(
                "",
                float(r.ratio),
                float(r.value),
                None,
                None,
                float(r.low),
                float(r.high),
                place,
                name=f"{method}, {n}",
            )
            for r, n in zip(ordered.itertuples(), names[1:], strict=True)
        ]
        told.append(f"{method} {number(points[-1][1])} at {points[-1][0]:.0%}")
    title = {"corrected_accuracy": "Corrected accuracy", "retained_accuracy": "Retained accuracy"}[metric]
    across = [x for line in series for x, _ in line.points]
    drawn = lines(
        series,
        Scale.around("Share of the bad rows that was found →", across, 0.0, None),
        Scale.around(title, []),
        title=title,
        description="; ".join(told),
        marks=marks,
    )
    return Markup(drawn), f"{title}, from {number(start)} as trained: {'; '.join(told)}."


def worst_case_views(evidence: Evidence) -> list[FiguresView]:
    """A view of each run that was audited with the worst-case suite."""
    views = []
    for run in evidence.runs:
        table = run.folder.samples(_SETS)
        if table is not None:
            views.append(FiguresView(run.label, [_sets(table)]))
    return views


def _sets(table) -> tuple[Markup, str]:  # type: ignore[no-untyped-def]
    """Each set by the retrained model's loss on it and the share that it gets wrong."""
    marks, told = [], []
    for row in table.itertuples():
        named = row.set in _NAMED
        loss = math.log10(max(float(row.loss), _FLOOR))
        said = f"{row.set}: loss {number(row.loss)}, {row.unlearning_accuracy:.1%} wrong"
        marks.append(
            Mark(
                row.set if named else "",
                loss,
                float(row.unlearning_accuracy),
                series=_NAMED.index(row.set) if named else len(_NAMED),
                name=said,
            )
        )
        if named:
            told.append(said)
    drawn = table[~table["set"].isin(_NAMED)]
    mean = f"random sets: loss {number(drawn['loss'].mean())}, {drawn['unlearning_accuracy'].mean():.1%} wrong"
    told.append(f"{mean} in the mean of {len(drawn)}")
    title = "Forget sets of the same size"
    figure = scatter(
        marks,
        Scale.around("Loss of the retrained model (log10) →", [mark.x for mark in marks], None, None),
        Scale.around("Share got wrong", [mark.y for mark in marks], 0.0, None),
        title=title,
        description="; ".join(told),
    )
    return Markup(figure), f"{title}: {'; '.join(told)}. Unlabelled points are random sets."
