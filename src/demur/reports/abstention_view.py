"""The abstention suite on a page: reliability diagram and risk-coverage curve, domain by domain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from demur.audits.calibration import reliability_bins, risk_coverage
from demur.reports.axes import Scale
from demur.reports.evidence import Evidence, Run
from demur.reports.plots import Line, Mark, lines
from demur.reports.tables import number

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["AbstentionView", "abstention_views"]

SUITE = "abstention"
_ROLES = {"run": "this model", "reference": "reference", "before": "before"}
_CALIBRATED = 7  # a series of its own, whose colour no model has
_POINTS = 60  # of a curve; more could not be told apart


@dataclass(frozen=True)
class AbstentionView:
    """One run's figures.

    Attributes:
        label: the run.
        figures: plots with captions, two a domain.
    """

    label: str
    figures: Sequence[tuple[Markup, str]]


def abstention_views(evidence: Evidence) -> list[AbstentionView]:
    """A view of each run that was audited with the abstention suite."""
    return [_view(run) for run in evidence.runs if run.state.get(SUITE)]


def _view(run: Run) -> AbstentionView:
    figures = []
    for domain in run.state[SUITE]["domains"]:
        table = run.folder.samples(f"{SUITE}_{domain}")
        if table is None:
            continue
        by_role = {role: _scored(table[table["role"] == role]) for role in _ROLES}
        found = {role: rows for role, rows in by_role.items() if len(rows)}
        if found:
            figures += [_reliability(found, domain, run.state[SUITE]["bins"]), _risk(found, domain)]
    return AbstentionView(run.label, figures)


def _scored(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with a confidence: the combined one where certainty was asked for."""
    column = "predict_conf" if rows["combined"].isna().all() else "combined"
    return rows.assign(shown=rows[column].astype(float)).dropna(subset=["shown"])


def _reliability(found: Mapping[str, pd.DataFrame], domain: str, bins: int) -> tuple[Markup, str]:
    """Share of right answers by confidence, with its interval for the run's own model."""
    series, marks, told = [Line("calibrated", [(0.0, 0.0), (1.0, 1.0)], _CALIBRATED)], [], []
    for place, (role, label) in enumerate(_ROLES.items()):
        if role not in found:
            continue
        rows = found[role]
        made = reliability_bins(rows["correct"], rows["shown"], bins)
        names = [f"{number(b.accuracy)} right of {b.n} with confidence {number(b.confidence)}" for b in made]
        series.append(Line(label, [(b.confidence, b.accuracy) for b in made], place, names))
        told.append(f"{label}: {'; '.join(names)}")
        if role == "run":
            marks = [
                Mark("", b.confidence, b.accuracy, None, None, b.accuracy_low, b.accuracy_high, place, name=text)
                for b, text in zip(made, names, strict=True)
            ]
    title = f"Reliability, {domain.replace('_', ' ')}"
    drawn = lines(
        series,
        Scale.around("Confidence →", []),
        Scale.around("Share right", []),
        title=title,
        description=". ".join(told),
        marks=marks,
    )
    return Markup(drawn), f"{title}: below the straight line a model is surer than it has reason to be."


def _risk(found: Mapping[str, pd.DataFrame], domain: str) -> tuple[Markup, str]:
    """Share of wrong answers when only the most confident are given."""
    series, told = [], []
    for place, (role, label) in enumerate(_ROLES.items()):
        if role not in found:
            continue
        coverage, risk = risk_coverage(found[role]["correct"], found[role]["shown"])
        step = max(1, len(risk) // _POINTS)
        kept = [*range(0, len(risk) - 1, step), len(risk) - 1]
        points = [(float(coverage[i]), float(risk[i])) for i in kept]
        names = [f"{number(y)} wrong when {number(x)} are answered" for x, y in points]
        series.append(Line(label, points, place, names))
        told.append(f"{label}: area {number(float(risk.mean()))}, {number(points[-1][1])} wrong when all are answered")
    title = f"Risk and coverage, {domain.replace('_', ' ')}"
    drawn = lines(
        series,
        Scale.around("Share answered, most confident first →", []),
        Scale.around("Share wrong", []),
        title=title,
        description=". ".join(told),
    )
    return Markup(drawn), f"{title}: {'; '.join(told)}."
