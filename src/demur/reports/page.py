"""The report: one self-contained HTML file that tells what runs did and lets every number be opened."""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path

import jinja2
from markupsafe import Markup, escape

import demur
from demur.errors import UsageError
from demur.files import atomic_write
from demur.reports.abstention_view import abstention_views
from demur.reports.classifier_view import classifier_views
from demur.reports.coverage_view import coverage_views
from demur.reports.displacement_view import displacement_views
from demur.reports.evidence import Evidence, Model, Role, Run, read_runs
from demur.reports.forget_sets_view import corrective_views, worst_case_views
from demur.reports.glossary import ARROWS, GROUPS, HEADLINE, describe
from demur.reports.parity_view import parity_views
from demur.reports.plots import STYLE, Line, Mark, forgetting_plot, marker, quality_plot, quality_scale, trajectory_plot
from demur.reports.provenance import differing_settings, notices, provenance
from demur.reports.questions import embed_json, questions_data
from demur.reports.refusal_view import refusal_views
from demur.reports.removal_view import removal_data, removal_views
from demur.reports.representation_view import representation_figures
from demur.reports.suite_sections import main_models, suite_sections
from demur.reports.tables import footnotes, full_table, headline_table
from demur.reports.targets_view import targets_views
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
    """A definition and the metrics it holds for, each with its arrow."""

    labels: list[tuple[str, str]]
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
    environment.filters |= {"sortable": _sortable, "tight": _tight}
    script = (_TEMPLATES / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    questions = questions_data(evidence)
    models = main_models(evidence)
    keys = _keys(evidence)
    main = [run for run in evidence.runs if any("/" not in name for name in run.results["run"])]
    return environment.get_template("report.html").render(
        title=_title(evidence),
        kind=_kind(evidence),
        judged=[Judged(run, _judge(evidence, run)) for run in main],
        sections=suite_sections(evidence),
        abstentions=abstention_views(evidence),
        classifiers=classifier_views(evidence),
        correctives=corrective_views(evidence),
        coverages=coverage_views(evidence),
        displacements=displacement_views(evidence),
        parities=parity_views(evidence),
        refusals=refusal_views(evidence),
        removals=removal_views(evidence),
        representations=representation_figures(evidence),
        targets=targets_views(evidence),
        worst_cases=worst_case_views(evidence),
        removals_json=Markup(embed_json(removal_data(evidence))),
        rules=Rules().sentences(),
        notices=notices(evidence),
        headline=headline_table(models),
        footnotes=footnotes(models),
        blocks=full_table(models),
        models=models,
        figures=_figures(evidence, keys),
        legend=_legend(evidence) if keys else [],
        has_reference=bool(evidence.of_role("reference")),
        questions=questions,
        questions_json=Markup(embed_json(questions)),
        provenance=[provenance(run) for run in evidence.runs],
        differing=differing_settings(evidence),
        glossary=_glossary(models) if main else [],
        version=demur.__version__,
        written=datetime.now(UTC).strftime("%-d %B %Y, %H:%M UTC"),
        style=Markup(STYLE + (_TEMPLATES / "report.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_digest=digest,
    )


def _kind(evidence: Evidence) -> str:
    forgets = any(run.config.get("command") == "forget" for run in evidence.runs)
    return "Forgetting report" if forgets else "Audit report"


def _title(evidence: Evidence) -> str:
    labels = [run.label for run in evidence.runs]
    return labels[0] if len(labels) == 1 else f"{len(labels)} runs"


def _judge(evidence: Evidence, run: Run) -> Verdict:
    before, reference = evidence.model(run, "before"), evidence.model(run, "reference")
    own = evidence.model(run, "run")
    return judge(
        run.results["run"],
        before.results if before else None,
        reference.results if reference else None,
        notes=own.notes if own else None,
    )


def _sortable(value: float | None) -> str:
    """A number as JavaScript reads it; empty for None."""
    if value is None:
        return ""
    return f"{value:.10g}" if math.isfinite(value) else "-1e9" if value < 0 else "1e9"


def _glossary(models: Sequence[Model]) -> list[Entry]:
    """The definitions of all metrics measured, each once; metrics with the same definition share it."""

    def place(metric: str) -> tuple[int, int, str]:
        first = HEADLINE.index(metric) if metric in HEADLINE else len(HEADLINE)
        return first, GROUPS.index(describe(metric).group), metric

    grouped: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for metric in sorted({m for model in models for m in model.results} | set(HEADLINE), key=place):
        known = describe(metric)
        if known.definition:
            grouped.setdefault((known.definition, known.interval), []).append((known.label, ARROWS[known.better][0]))
    return [Entry(labels, definition, interval) for (definition, interval), labels in grouped.items()]


def _tight(text: str) -> Markup:
    """Text in which "p = 0.4" and "5 %" do not break across lines."""
    return escape(re.sub(r"(?<=\b[pn]) = (?=\d)| (?=%)", lambda m: m[0].replace(" ", "\u00a0"), text))


def _keys(evidence: Evidence) -> dict[str, str]:
    """Numbers that stand for the runs in plots where their names would be too many or too long; else empty."""
    labels = [run.label for run in evidence.runs]
    if len(labels) <= 6 and max(map(len, labels)) <= 18:
        return {}
    return {label: str(number) for number, label in enumerate(labels, 1)}


def _legend(evidence: Evidence) -> list[tuple[Markup, int, str]]:
    return [(Markup(marker(i)), i + 1, run.label) for i, run in enumerate(evidence.runs)]


def _figures(evidence: Evidence, keys: Mapping[str, str]) -> list[Figure]:
    figures = []
    quality = [mark for model in evidence.models if (mark := _quality_mark(evidence, model, keys)) is not None]
    if any(mark.role == "run" for mark in quality):
        caption = (
            "Up and to the right is better. Above the dashed line the test sees no difference from gold. "
            "Gold compared with itself has p = 1."
        )
        if quality_scale([m.y for m in quality]).floor:
            caption += " The band at the foot holds p-values that are smaller still."
        figures.append(Figure(Markup(quality_plot(quality)), caption))
    measured = [
        mark for model in evidence.models if (mark := _mark(evidence, model, "model_utility", keys)) is not None
    ]
    if any(mark.role == "run" for mark in measured):
        caption = "Good is to the right, at the height of gold: lower means forgetting more than never having seen it."
        if not evidence.of_role("reference"):
            caption = "Without a gold model the height to aim for is not known. Lines are 95 % intervals."
        figures.append(Figure(Markup(forgetting_plot(measured, "Forget set probability")), caption))
    series = [line for number, run in enumerate(evidence.runs) if (line := _trajectory(run, number, keys)) is not None]
    if series:
        marks = [
            mark
            for model in evidence.models
            if model.role != "run" and (mark := _mark(evidence, model, "retain_probability", keys)) is not None
        ]
        sizes = sorted({r.n for run in evidence.runs for rows in run.trajectory.values() for r in rows})
        caption = (
            "One dot an epoch, the large one the last. Straight down is forgetting; to the left is damage. "
            f"Measured in training on {' to '.join(map(str, dict.fromkeys((sizes[0], sizes[-1]))))} rows of each set."
        )
        figures.append(Figure(Markup(trajectory_plot(series, marks)), caption))
    return figures


def _mark(evidence: Evidence, model: Model, utility: str, keys: Mapping[str, str]) -> Mark | None:
    x, y = model.results.get(utility), model.results.get("forget_probability")
    if x is None or y is None or x.value is None or y.value is None:
        return None
    series, role = _look(evidence, model)
    return Mark(keys.get(model.label, model.label), x.value, y.value, x.low, x.high, y.low, y.high, series, role)


def _quality_mark(evidence: Evidence, model: Model, keys: Mapping[str, str]) -> Mark | None:
    x, logarithm = model.results.get("model_utility"), _log10_quality(model)
    if x is None or x.value is None or logarithm is None:
        return None
    series, role = _look(evidence, model)
    return Mark(keys.get(model.label, model.label), x.value, logarithm, x.low, x.high, None, None, series, role)


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


def _look(evidence: Evidence, model: Model) -> tuple[int | None, Role]:
    return (list(evidence.runs).index(model.runs[0]) if model.role == "run" else None), model.role


def _trajectory(run: Run, number: int, keys: Mapping[str, str]) -> Line | None:
    forget = {r.epoch: r.value for r in run.trajectory.get("forget_probability", ()) if r.value is not None}
    retain = {r.epoch: r.value for r in run.trajectory.get("retain_probability", ()) if r.value is not None}
    epochs = sorted(epoch for epoch in forget if epoch in retain and epoch is not None)
    if not epochs:
        return None
    points = [(float(retain[e] or 0.0), float(forget[e] or 0.0)) for e in epochs]
    return Line(keys.get(run.label, run.label), points, number, [f"epoch {epoch:g}" for epoch in epochs])
