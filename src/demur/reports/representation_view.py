"""The representation suite on a page: who answers like a retrained model, and whose features are like its."""

from __future__ import annotations

from collections.abc import Mapping

from markupsafe import Markup

from demur.reports.axes import Scale
from demur.reports.evidence import Evidence, Run
from demur.reports.plots import Mark, scatter
from demur.reports.tables import number

__all__ = ["representation_figures"]

SUITE = "representation"
_FIXED = {
    "before": ("before", "before"),
    "reference": ("retrained", "reference"),
    "ceiling": ("retrained again", "before"),
}
_PLOTS = (
    ("agl", "agr", "Answers (AGL) →", "Features (AGR) →", "Closeness to the retrained model: features against answers"),
    (
        "cka_retrained:all",
        "knn:forget",
        "CKA with the retrained model →",
        "k-NN accuracy on forgotten classes",
        "What features still tell of forgotten classes, against how like the retrained model's they are",
    ),
)


def representation_figures(evidence: Evidence) -> list[tuple[Markup, str]]:
    """Plots with captions of all runs that were audited with the representation suite; none without any."""
    runs = [(run, table) for run in evidence.runs if (table := _numbers(run)) is not None]
    return [] if not runs else [_figure(runs, *plot) for plot in _PLOTS]


def _numbers(run: Run) -> dict[str, dict[str, float]] | None:
    """Role → metric → value."""
    table = run.folder.samples(SUITE)
    if table is None:
        return None
    kept = table.dropna(subset=["value"])
    return {str(role): dict(zip(part["metric"], part["value"], strict=True)) for role, part in kept.groupby("role")}


def _figure(
    runs: list[tuple[Run, dict[str, dict[str, float]]]], x: str, y: str, across: str, up: str, title: str
) -> tuple[Markup, str]:
    marks: list[Mark] = []
    for series, (run, roles) in enumerate(runs):
        marks += _mark(run.label, roles.get("run", {}), x, y, series, "run")
    for role, (label, drawn) in _FIXED.items():
        points = {(found[x], found[y]) for _, roles in runs if x in (found := roles.get(role, {})) and y in found}
        for a, b in sorted(points):
            marks += _mark(label, {x: a, y: b}, x, y, None, drawn)
    told = "; ".join(f"{mark.label}: {number(mark.x)}, {number(mark.y)}" for mark in marks)
    scales = Scale.around(across, [m.x for m in marks]), Scale.around(up, [m.y for m in marks])
    drawing = scatter(marks, *scales, title=title, description=told)
    return Markup(drawing), f"{title}. {told}."


def _mark(label: str, found: Mapping[str, float], x: str, y: str, series: int | None, role: str) -> list[Mark]:
    if x not in found or y not in found:
        return []
    return [Mark(label, found[x], found[y], series=series, role=role)]  # type: ignore[arg-type]
