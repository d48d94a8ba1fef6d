"""The report: one self-contained HTML file that tells what runs did and lets every number be opened."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

import demur
from demur.errors import UsageError
from demur.files import atomic_write
from demur.reports.evidence import Evidence, Model, Run, read_runs
from demur.reports.glossary import ARROWS, HEADLINE, describe
from demur.reports.plots import STYLE, Line, Mark, forgetting_plot, quality_plot, trajectory_plot
from demur.reports.provenance import differing_settings, notices, provenance
from demur.reports.questions import embed_json, questions_data
from demur.reports.tables import full_table, headline_table
from demur.reports.verdict import Rules, Verdict, judge
from demur.runs import Result, RunFolder

__all__ = ["write_report"]

_TEMPLATES = files("demur.reports") / "templates"


@dataclass(frozen=True)
class Judged:
    """A run with its verdict."""

    run: Run
    verdict: Verdict


@dataclass(frozen=True)
class Figure:
    """A plot with the line beneath it."""

    svg: Markup
    caption: str


@dataclass(frozen=True)
class Entry:
    """A definition and the metrics it holds for."""

    labels: list[str]
    arrows: list[str]
    definition: str
    interval: str


def write_report(runs: Sequence[RunFolder], out: Path) -> Path:
    """Write one HTML file about audited runs; it needs no other file and no network.

    Args:
        runs: run folders, each audited.
        out: where the file goes; what is there is replaced in one step.

    Returns:
        The path written.

    Raises:
        UsageError: a run has no audit results, a run is named twice, there is none, or `out` cannot be written.
    """
    page = _render(read_runs(runs))
    out = Path(out)
    if out.is_dir():
        raise UsageError(f"{out} is a folder: name the file, for instance {out / 'report.html'}")
    try:
        with atomic_write(out) as temporary:
            temporary.write_text(page, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write the report to {out}: {error.strerror or error}") from error
    return out


def _render(evidence: Evidence) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (_TEMPLATES / name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["sortable"] = _sortable
    script = (_TEMPLATES / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    questions = questions_data(evidence)
    models = list(evidence.models)
    return environment.get_template("report.html").render(
        title=_title(evidence),
        judged=[Judged(run, _judge(evidence, run)) for run in evidence.runs],
        rules=Rules().sentences(),
        notices=notices(evidence),
        headline=headline_table(models),
        blocks=full_table(models),
        models=models,
        figures=_figures(evidence),
        has_reference=bool(evidence.of_role("reference")),
        questions=questions,
        questions_json=Markup(embed_json(questions)),
        provenance=[provenance(run) for run in evidence.runs],
        differing=differing_settings(evidence),
        glossary=_glossary(models),
        version=demur.__version__,
        written=datetime.now(UTC).strftime("%-d %B %Y, %H:%M UTC"),
        style=Markup((_TEMPLATES / "report.css").read_text(encoding="utf-8") + STYLE),
        script=Markup(script),
        script_digest=digest,
    )


def _title(evidence: Evidence) -> str:
    labels = [run.label for run in evidence.runs]
    return labels[0] if len(labels) == 1 else f"{len(labels)} runs"


def _judge(evidence: Evidence, run: Run) -> Verdict:
    before, reference = evidence.model(run, "before"), evidence.model(run, "reference")
    return judge(run.results["run"], before and before.results, reference and reference.results)


def _sortable(value: float | None) -> str:
    """A number as JavaScript reads it; empty for None."""
    if value is None:
        return ""
    return f"{value:.10g}" if math.isfinite(value) else "-1e9" if value < 0 else "1e9"


def _glossary(models: Sequence[Model]) -> list[Entry]:
    """The definitions of all metrics measured, each once; metrics with the same definition share it."""
    names = sorted({m for model in models for m in model.results} | set(HEADLINE), key=lambda m: (m not in HEADLINE, m))
    grouped: dict[tuple[str, str], list[str]] = {}
    for name in names:
        known = describe(name)
        if known.definition:
            grouped.setdefault((known.definition, known.interval), []).append(name)
    entries = []
    for (definition, interval), metrics in grouped.items():
        arrows = {ARROWS[describe(m).better][0]: None for m in metrics}
        labels = [describe(m).label for m in metrics]
        entries.append(Entry(labels, [a for a in arrows if a], definition, interval))
    return entries


def _figures(evidence: Evidence) -> list[Figure]:
    figures = []
    quality = [mark for model in evidence.models if (mark := _quality_mark(evidence, model)) is not None]
    if any(mark.role == "run" for mark in quality):
        caption = (
            "Up and to the right is better. Above the dashed line the test sees no difference from gold. "
            "Gold compared with itself has p = 1. The band at the foot holds p-values that are smaller still."
        )
        figures.append(Figure(Markup(quality_plot(quality)), caption))
    measured = [mark for model in evidence.models if (mark := _mark(evidence, model, "model_utility")) is not None]
    if any(mark.role == "run" for mark in measured):
        caption = "Good is to the right, at the height of gold: lower means forgetting more than never having seen it."
        if not evidence.of_role("reference"):
            caption = "Without a gold model the height to aim for is not known. Lines are 95 % intervals."
        figures.append(Figure(Markup(forgetting_plot(measured, "Forget set probability")), caption))
    series = [line for number, run in enumerate(evidence.runs) if (line := _trajectory(run, number)) is not None]
    if series:
        marks = [
            mark
            for model in evidence.models
            if model.role != "run" and (mark := _mark(evidence, model, "retain_probability")) is not None
        ]
        caption = "One dot an epoch, the large one the last. Straight down is forgetting; to the left is damage."
        figures.append(Figure(Markup(trajectory_plot(series, marks)), caption))
    return figures


def _mark(evidence: Evidence, model: Model, utility: str) -> Mark | None:
    x, y = model.results.get(utility), model.results.get("forget_probability")
    if x is None or y is None or x.value is None or y.value is None:
        return None
    spans = {"x_low": x.low, "x_high": x.high, "y_low": y.low, "y_high": y.high}
    return Mark(model.label, x.value, y.value, **spans, **_look(evidence, model))


def _quality_mark(evidence: Evidence, model: Model) -> Mark | None:
    x, logarithm = model.results.get("model_utility"), _log10_quality(model)
    if x is None or x.value is None or logarithm is None:
        return None
    return Mark(model.label, x.value, logarithm, x.low, x.high, **_look(evidence, model))


def _log10_quality(model: Model) -> float | None:
    if model.role == "reference":
        return 0.0
    exponent: Result | None = model.results.get("forget_quality_log10")
    p: Result | None = model.results.get("forget_quality")
    if exponent is not None and exponent.value is not None:
        return exponent.value
    if p is None or p.value is None:
        return None
    return math.log10(p.value) if p.value > 0 else -math.inf


def _look(evidence: Evidence, model: Model) -> dict[str, Any]:
    return {"series": list(evidence.runs).index(model.runs[0]) if model.role == "run" else None, "role": model.role}


def _trajectory(run: Run, number: int) -> Line | None:
    forget = {r.epoch: r.value for r in run.trajectory.get("forget_probability", ()) if r.value is not None}
    retain = {r.epoch: r.value for r in run.trajectory.get("retain_probability", ()) if r.value is not None}
    epochs = sorted(epoch for epoch in forget if epoch in retain and epoch is not None)
    if not epochs:
        return None
    points = [(float(retain[e] or 0.0), float(forget[e] or 0.0)) for e in epochs]
    return Line(run.label, points, number, [f"epoch {epoch:g}" for epoch in epochs])
