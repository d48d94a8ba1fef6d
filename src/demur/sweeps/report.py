"""The report of a sweep: one HTML file with the Pareto front and the setting to take, and a recipe that repeats it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path

import jinja2
import yaml
from markupsafe import Markup

import demur
from demur.files import atomic_write
from demur.reports.axes import Scale
from demur.reports.glossary import ARROWS, describe
from demur.reports.plots import STYLE, Line, Mark, lines, marker
from demur.reports.tables import number
from demur.sweeps.pareto import dominators
from demur.sweeps.table import RECOVERY, Measured, Name, Point, Sweep, recommend
from demur.sweeps.trial import MARKER

__all__ = ["RECIPE", "REPORT", "Column", "columns", "span", "verdict", "write_sweep_report"]

REPORT, RECIPE = "report.html", "recommended.yaml"
_RECOVERED = (
    "Fine-tuning on half of the forget rows and measuring the answers to the other half: the share of what the model "
    "before knew that comes back, beyond what the same steps teach the gold model, (m − m_gold) / (m_before − m_gold), "
    "clipped to [−1, 1], at the step where most is known. m is the mean probability of the answers. Without a gold "
    "model m_gold is 0. Below 0 counts as 0 in comparisons."
)


@dataclass(frozen=True)
class Column:
    """A measure as it heads a column."""

    name: Name
    label: str
    arrow: str
    direction: str
    definition: str


def columns(sweep: Sweep) -> list[Column]:
    """The measures that a sweep's settings are compared by."""
    out = []
    for name in sweep.measures:
        metric = getattr(sweep.settings.measures, name)
        arrow, direction = ARROWS[sweep.directions[name]]
        if metric == RECOVERY:
            out.append(Column(name, "Recovery by relearning", arrow, direction, _RECOVERED))
            continue
        known = describe(metric)
        text = known.definition
        if sweep.directions[name] == "reference" and "reference" in sweep.fixed[name]:
            text += " Settings are compared by its distance to the gold model's, seed by seed."
        out.append(Column(name, known.label, arrow, direction, text))
    return out


def span(found: Measured) -> str:
    """Smallest and largest over the seeds; empty where they are the same."""
    return "" if found.low == found.high else f"[{number(found.low)}, {number(found.high)}]"


def verdict(point: Point) -> str:
    """Whether a setting is on the front, or what beats it."""
    if not point.compared:
        return "not compared: a measure is missing"
    if point.on_front:
        return "yes"
    return "beaten by " + ", ".join(map(str, point.dominated_by))


def write_sweep_report(sweep: Sweep) -> Path:
    """Write `report.html`, and `recommended.yaml` where a setting fulfils the rule, into the sweep's folder.

    Returns:
        The report's path.
    """
    choice, rule = recommend(sweep)
    recipe = ""
    if choice is not None:
        settings = choice.configuration.settings.model_dump()
        recipe = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
        with atomic_write(sweep.folder / RECIPE) as temporary:
            temporary.write_text(recipe, encoding="utf-8")
    else:
        (sweep.folder / RECIPE).unlink(missing_ok=True)
    page = _page(sweep, choice, rule, recipe)
    with atomic_write(sweep.folder / REPORT) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return sweep.folder / REPORT


def _page(sweep: Sweep, choice: Point | None, rule: str, recipe: str) -> str:
    template = (files("demur.sweeps") / "templates" / "sweep.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    style = (files("demur.reports") / "templates" / "report.css").read_text(encoding="utf-8")
    table = sweep.trials
    failed = table[table["status"] == "failed"]
    found = columns(sweep)
    return environment.from_string(template).render(
        title=f"{sweep.folder.name}: {sweep.settings.settings.get('model', '')}",
        done=int((table["status"] == "done").sum()),
        planned=len(table),
        failures=[(f"{row['setting']}, seed {row['seed']}", row["reason"]) for row in failed.to_dict("records")],
        choice=None if choice is None else choice.configuration,
        rule=rule,
        recipe=recipe,
        recipe_file=str(sweep.folder / RECIPE),
        figures=[(Markup(_plot(sweep, x, y)), _caption(sweep, x, y)) for y, x in itertools.combinations(found, 2)],
        legend=[(Markup(marker(i)), name) for i, name in enumerate(sweep.settings.objectives)],
        columns=found,
        missing=sweep.missing,
        rows=[
            {
                "number": point.number,
                "label": point.configuration.label,
                "cells": [_cell(point.measures.get(c.name)) for c in found],
                "verdict": verdict(point),
                "runs": [(trial.settings["seed"], _link(trial.name)) for trial in point.trials],
            }
            for point in sorted(sweep.points, key=lambda p: (not p.on_front, not p.compared, p.number))
        ],
        fixed=[
            (label, [number(sweep.fixed[c.name].get(role)) for c in found])
            for role, label in (("before", "before"), ("reference", "gold"))
            if any(role in sweep.fixed[c.name] for c in found)
        ],
        sweep_recipe=(sweep.folder / MARKER).read_text(encoding="utf-8"),
        version=demur.__version__,
        written=datetime.now(UTC).strftime("%-d %B %Y, %H:%M UTC"),
        style=Markup(STYLE + style),
    )


def _cell(found: Measured | None) -> tuple[str, str]:
    return ("–", "") if found is None else (number(found.mean), span(found))


def _link(trial: str) -> str:
    return f"trials/{trial}/report.html"


def _caption(sweep: Sweep, x: Column, y: Column) -> str:
    aims = {"higher": "high", "lower": "low", "zero": "near zero", "reference": "near the gold model"}
    good = [f"{c.label} {aims.get(sweep.directions[c.name], 'low')}" for c in (x, y)]
    return f"Good: {good[0]}, {good[1]}. The line is the front of these two measures alone."


def _plot(sweep: Sweep, x: Column, y: Column) -> str:
    """Settings by two of the measures, with the front of the two."""
    points = [p for p in sweep.points if x.name in p.measures and y.name in p.measures]
    marks = []
    for point in points:
        a, b = point.measures[x.name], point.measures[y.name]
        link = _link(point.trials[0].name) if len(point.trials) == 1 else f"#setting-{point.number}"
        series = sweep.settings.objectives.index(point.configuration.settings.objective)
        label = f"{point.number}" + ("*" if point.on_front else "")
        marks.append(
            Mark(label, a.mean, b.mean, a.low, a.high, b.low, b.high, series, "run", link, point.configuration.label)
        )
    for role, text in (("before", "before"), ("reference", "gold")):
        place = [sweep.fixed[c.name].get(role) for c in (x, y)]
        if place[0] is not None and place[1] is not None:
            marks.append(Mark(text, place[0], place[1], role="before" if role == "before" else "reference"))
    front = _front(points, x.name, y.name)
    joined = [(p.measures[x.name].mean, p.measures[y.name].mean) for p in front]
    return lines(
        [Line("", joined, len(sweep.settings.objectives))],  # in a colour that no objective has
        Scale.around(f"{x.label} →", [m.x for m in marks]),
        Scale.around(y.label, [m.y for m in marks]),
        title=f"{y.label} against {x.label.lower()}",
        description="; ".join(f"{m.name or m.label}: {x.label} {m.x:.2f}, {y.label} {m.y:.2f}" for m in marks),
        marks=marks,
    )


def _front(points: Sequence[Point], *names: Name) -> list[Point]:
    """The points that none beats in these measures, from left to right."""
    beaten = dominators([[p.measures[name].loss for name in names] for p in points])
    kept = [p for p, by in zip(points, beaten, strict=True) if not by]
    return sorted(kept, key=lambda p: (p.measures[names[0]].mean, p.measures[names[1]].mean))
