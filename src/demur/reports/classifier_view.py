"""The suite for classifiers on a page: every metric beside the retrained model's, and how the rows come back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from demur.reports.axes import Scale
from demur.reports.classifier_glossary import describe_classifier
from demur.reports.evidence import Evidence, Run
from demur.reports.glossary import ARROWS
from demur.reports.plots import Line, lines
from demur.reports.tables import interval, number

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ClassifierRow", "ClassifierView", "classifier_views"]

_METRICS = "classifier_unlearning_metrics"
_RELEARNING = "classifier_unlearning_relearning"
_ROLES = {"before": "before", "run": "this model", "reference": "retrained", "floor": "retrained again"}


@dataclass(frozen=True)
class ClassifierRow:
    """One metric.

    Attributes:
        label, arrow, direction: its name and which way is good.
        cells: value with interval of each model in the order of the columns.
        gap: distance to the retrained model.
        note: what to know about it.
    """

    label: str
    arrow: str
    direction: str
    cells: Sequence[str]
    gap: str
    note: str


@dataclass(frozen=True)
class ClassifierView:
    """One run's section.

    Attributes:
        label: of the run.
        models: headings of the columns.
        rows: a metric each.
        figures: plots with captions.
        warnings: what stands in the way of reading the numbers as they are.
    """

    label: str
    models: Sequence[str]
    rows: Sequence[ClassifierRow]
    figures: Sequence[tuple[Markup, str]]
    warnings: Sequence[str]


def classifier_views(evidence: Evidence) -> list[ClassifierView]:
    """A view of each run that was audited with the suite."""
    views = []
    for run in evidence.runs:
        table = run.folder.samples(_METRICS)
        if table is not None:
            views.append(_view(run, table))
    return views


def _view(run: Run, table: pd.DataFrame) -> ClassifierView:
    roles = [role for role in _ROLES if (table["role"] == role).any()]
    found = {role: {row["metric"]: row for row in _rows(table, role)} for role in roles}
    rows = []
    for metric, own in found["run"].items():
        label, _, _, _, _ = describe_classifier(metric)
        arrow, direction = ARROWS[own["better"]]
        floor = own["reference"] if metric.startswith(("u_lira", "klom")) else None
        cells = [_cell(found[role].get(metric)) for role in roles]
        if floor is not None and "reference" in roles:
            cells[roles.index("reference")] = number(floor)  # two populations that never saw the rows
        note = own["note"] if own["value"] is None or metric in ("mia_member_rate", "test_accuracy") else ""
        rows.append(ClassifierRow(label, arrow, direction, cells, number(own["gap"]), note or ""))
    told = [found["run"][m]["note"] for m in ("mia_member_rate", "test_accuracy") if m in found["run"]]
    curves = run.folder.samples(_RELEARNING)
    figures = [] if curves is None or curves.empty else [_relearning(curves)]
    return ClassifierView(run.label, [_ROLES[r] for r in roles], rows, figures, [note for note in told if note])


def _rows(table: pd.DataFrame, role: str) -> list[dict[str, Any]]:
    """A role's rows with None for what is missing."""
    own = table[table["role"] == role].astype(object)
    kept = own.where(own.notna(), None).to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in kept]


def _cell(row: Mapping[str, Any] | None) -> str:
    return "–" if row is None else interval(row["value"], row["low"], row["high"])


def _relearning(curves: pd.DataFrame) -> tuple[Markup, str]:
    """Accuracy on the forget rows over the steps of training on everything."""
    series, told = [], []
    for place, (role, label) in enumerate(_ROLES.items()):
        own = curves[curves["role"] == role].sort_values("step")
        if own.empty:
            continue
        every = max(1, len(own) // 24)
        points = [(float(s), float(a)) for s, a in zip(own["step"], own["accuracy"], strict=True)][::every]
        series.append(Line(label, points, place, [f"step {s:.0f}: {number(a)}" for s, a in points]))
        told.append(f"{label} from {number(points[0][1])} to {number(points[-1][1])}")
    title = "Accuracy on the forget rows while all rows are trained on again"
    drawn = lines(
        series,
        Scale.around("Steps →", [x for line in series for x, _ in line.points], 0.0, None),
        Scale.around("Accuracy on the forget rows", []),
        title=title,
        description="; ".join(told),
    )
    caption = f"{title}: a curve left of the retrained model's tells of knowledge that was only hidden."
    return Markup(drawn), caption
