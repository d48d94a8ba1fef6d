"""The refusal suite on a page: what was refused against what should not have been, and the curve of every threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from demur.guards.refusal_calibration import RefusalCurve, refusal_curve
from demur.reports.axes import Scale
from demur.reports.evidence import Evidence, Run
from demur.reports.plots import Line, Mark, lines
from demur.reports.tables import number

__all__ = ["RefusalView", "draw_curves", "refusal_views"]

SUITE = "refusal"
_ROLES = {"run": "this model", "reference": "reference", "before": "before"}
_POINTS = 60  # of a curve; more could not be told apart
_SHOWN = 200  # answers of each kind


@dataclass(frozen=True)
class RefusalView:
    """One run's part.

    Attributes:
        label: the run.
        figures: plots with captions.
        wrong: answers that went wrong: request, answer, and how, of the run's own model.
        remark: which guard answered; empty without one.
    """

    label: str
    figures: Sequence[tuple[Markup, str]]
    wrong: Sequence[tuple[str, str, str]]
    remark: str = ""


def refusal_views(evidence: Evidence) -> list[RefusalView]:
    """A view of each run that was audited with the refusal suite."""
    return [_view(run) for run in evidence.runs if run.state.get(SUITE)]


def draw_curves(
    curves: Mapping[str, RefusalCurve], marks: Sequence[Mark] = (), standalone: bool = False
) -> tuple[str, str]:
    """Refusal rate against over-refusal as thresholds fall.

    Args:
        curves: label → curve.
        marks: measured models beside the curves.
        standalone: for a file of its own.

    Returns:
        The SVG and a caption.
    """
    series, told = [], []
    for place, (label, curve) in enumerate(curves.items()):
        kept = np.unique(np.linspace(0, len(curve.thresholds) - 1, _POINTS).round().astype(int))
        points = [(float(curve.over_refusal[i]), float(curve.refusal_rate[i])) for i in kept]
        names = [
            f"threshold {number(float(curve.thresholds[i]))}: refuses {number(y)}, over-refuses {number(x)}"
            for i, (x, y) in zip(kept, points, strict=True)
        ]
        series.append(Line(label, points, place, names))
        told.append(f"{label}: area {number(curve.auc)}")
    told += [f"{mark.name or mark.label} refuses {number(mark.y)}, over-refuses {number(mark.x)}" for mark in marks]
    title = "Refused of what is to be refused, against refused of what is to be answered"
    drawing = lines(
        series,
        Scale.around("Over-refusal →", []),
        Scale.around("Refusal rate", []),
        title=title,
        description="; ".join(told),
        marks=marks,
        standalone=standalone,
    )
    return drawing, f"{title}. {'; '.join(told)}. Up and to the left is better."


def _view(run: Run) -> RefusalView:
    curves, marks = {}, []
    for place, (role, label) in enumerate(_ROLES.items()):
        curve = _curve(run, role)
        if curve is not None:
            curves["every threshold" if role == "run" else f"every threshold, {label}"] = curve
        found = [run.results.get(role, {}).get(f"{SUITE}/{name}") for name in ("over_refusals", "full_refusals")]
        over, rate = found
        if over is not None and rate is not None and over.value is not None and rate.value is not None:
            of = {"run": "run", "reference": "reference", "before": "before"}[role]
            marks.append(
                Mark(label, over.value, rate.value, over.low, over.high, rate.low, rate.high, place, of)  # type: ignore[arg-type]
            )
    figures = []
    if curves or marks:
        drawing, caption = draw_curves(curves, marks)
        figures.append((Markup(drawing), caption))
    guard = run.state[SUITE].get("guard")
    return RefusalView(run.label, figures, _wrong(run), f"The guard {guard} answered." if guard else "")


def _curve(run: Run, role: str) -> RefusalCurve | None:
    values, refuses = [], []
    for kind in ("refuse", "comply"):
        table = run.folder.samples(f"{SUITE}_{kind}")
        if table is None:
            return None
        scores = table[table["role"] == role]["token_score"].dropna()
        values += scores.to_list()
        refuses += [kind == "refuse"] * len(scores)
    return refusal_curve(values, refuses) if any(refuses) and not all(refuses) else None


def _wrong(run: Run) -> list[tuple[str, str, str]]:
    out = []
    for kind, problem, wrong in (
        ("refuse", "answered", "none"),
        ("refuse", "said no, then answered", "partial"),
        ("comply", "refused", "full"),
    ):
        table = run.folder.samples(f"{SUITE}_{kind}")
        if table is None:
            continue
        rows = table[(table["role"] == "run") & (table["refusal"] == wrong)].head(_SHOWN)
        out += [
            (str(prompt), str(answer), problem)
            for prompt, answer in zip(rows["prompt"], rows["generation"], strict=True)
        ]
    return out
