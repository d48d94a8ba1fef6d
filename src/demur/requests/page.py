"""Pages about requests: the ledger's status with plots of the sequence, and certificates; no row's text in either."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup

import demur
from demur.errors import UsageError
from demur.files import atomic_write
from demur.reports import Line, Mark, Scale, interval, lines
from demur.reports.plots import STYLE
from demur.requests.history import FORGET, UTILITY, History, Measure
from demur.requests.store import now

if TYPE_CHECKING:
    from demur.requests.ledger import Ledger, Standing

__all__ = ["certificate_page", "deadline_text", "measure_text", "status_json", "write_status"]

_TEMPLATES = files("demur.requests") / "templates"
_REPORT = files("demur.reports") / "templates"
_LABELLED = 8  # forget scores with a line of their own; more would be a thicket


def measure_text(measure: Measure | None) -> str:
    """A number with its interval; a dash where there is none."""
    return "–" if measure is None else interval(measure.value, measure.low, measure.high)


def deadline_text(standing: Standing) -> str:
    """What is left until the deadline, or how an answer kept it."""
    request = standing.request
    if standing.days_left is None:
        return "in time" if request.on_time else "late"
    days = abs(standing.days_left)
    what = f"{days} day{'' if days == 1 else 's'}"
    return f"overdue by {what}" if standing.overdue else f"{what} left"


def status_json(ledger: Ledger, at: datetime | None = None) -> dict[str, Any]:
    """The status as JSON values: every request, the sequence, and what the model is."""
    past = ledger.history()
    return {
        "ledger": str(ledger.path),
        "model": past.settings["model"],
        "current_model": past.model,
        "weights_sha256": past.weights,
        "head": past.head,
        "overdue": [s.request.id for s in ledger.status(at) if s.overdue],
        "requests": [_standing_json(standing) for standing in ledger.status(at)],
        "sequence": [{**asdict(step), "missing": {str(k): v for k, v in step.missing.items()}} for step in past.steps],
    }


def _standing_json(standing: Standing) -> dict[str, Any]:
    request = asdict(standing.request)
    del request["repeated"]
    for name in ("received", "deadline", "finished"):
        request[name] = None if request[name] is None else request[name].isoformat()
    measures = {
        name: None if (measure := getattr(standing, name)) is None else asdict(measure)
        for name in ("before", "forget", "latest", "reference", "utility")
    }
    return {
        **request,
        "on_time": standing.request.on_time,
        "days_left": standing.days_left,
        "overdue": standing.overdue,
        "run": standing.run,
        "verdict": None if standing.verdict is None else asdict(standing.verdict),
        **measures,
    }


def write_status(ledger: Ledger, out: Path | None = None, at: datetime | None = None) -> Path:
    """Write the status page: every request, and utility and forget scores along the sequence.

    Args:
        ledger: the ledger.
        out: the file; `status.html` in the ledger's folder by default.
        at: the time to count deadlines from; now by default.

    Raises:
        UsageError: the file cannot be written.
    """
    past = ledger.history()
    standings = ledger.status(at)
    page = _render(
        "status.html",
        standings=standings,
        past=past,
        figures=_figures(past),
        missing={request: why for step in past.finished for request, why in step.missing.items()},
        name=ledger.path.name,
    )
    file = out or ledger.path / "status.html"
    try:
        with atomic_write(file) as temporary:
            temporary.write_text(page, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {file}: {error.strerror or error}") from error
    return file


def certificate_page(document: Mapping[str, Any]) -> str:
    """The certificate as a page for people."""
    return _render("certificate.html", document=document, c=document["certificate"])


def _render(template: str, **facts: Any) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (_TEMPLATES / name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"measure": measure_text, "known": _known_text, "day": _day, "left": deadline_text}
    style = STYLE + (_REPORT / "report.css").read_text(encoding="utf-8")
    return environment.get_template(template).render(
        version=demur.__version__, written=_day(now().isoformat()), style=Markup(style), **facts
    )


def _known_text(measure: Mapping[str, Any] | None) -> str:
    return "–" if measure is None else interval(measure["value"], measure["low"], measure["high"])


def _day(time: str | datetime | None) -> str:
    if time is None:
        return "–"
    moment = datetime.fromisoformat(time) if isinstance(time, str) else time
    return moment.strftime("%-d %B %Y, %H:%M UTC")


def _figures(past: History) -> list[tuple[Markup, str]]:
    """Utility and forget scores against the steps; none before the first step."""
    if not past.finished:
        return []
    last = len(past.finished)
    places = {step.number: place for place, step in enumerate(past.finished, 1)}
    along = Scale("Steps done →", 0, max(6, last))
    before = past.finished[0].measure(UTILITY, role="before")
    curve = [(0, before)] if before else []
    curve += [(place, m) for place, step in enumerate(past.finished, 1) if (m := step.measure(UTILITY))]
    points = [(float(place), m.value) for place, m in curve]
    marks = [Mark("", float(place), m.value, None, None, m.low, m.high, 0) for place, m in curve]
    utility = lines(
        [Line("utility", points, 0, [f"after step {place}: {measure_text(m)}" for place, m in curve])],
        along,
        Scale.around("Probability of the rows to keep →", [m.value for _, m in curve]),
        title="Utility along the sequence",
        description="; ".join(f"after {place} steps {m.value:.2f}" for place, m in curve),
        marks=marks,
    )
    scores = _score_lines(past, places)
    forget = lines(
        scores,
        along,
        Scale.around("Probability of the rows to forget", [y for line in scores for _, y in line.points]),
        title="Forget scores along the sequence",
        description="; ".join(f"{line.label}: {line.points[0][1]:.2f} to {line.points[-1][1]:.2f}" for line in scores),
    )
    told = "" if len(scores) <= _LABELLED else f" Only the first and the last {_LABELLED - 1} requests are named."
    return [
        (Markup(utility), "What the model still knows of the rows to keep; level is good. Lines are 95 % intervals."),
        (
            Markup(forget),
            f"Each request's rows before and after its step and after all later ones; low is good.{told}",
        ),
    ]


def _score_lines(past: History, places: Mapping[int, int]) -> list[Line]:
    out: list[Line] = []
    for request in past.requests.values():
        step = past.step(request.step) if request.state == "done" else None
        if step is None:
            continue
        before = step.measure(FORGET, request.id, "before")
        points = [(places[step.number] - 1.0, before.value)] if before else []
        points += [(float(places[number]), m.value) for number, m in past.forget_scores(request.id)]
        names = ["before", *(f"after step {places[number]}" for number, _ in past.forget_scores(request.id))]
        out.append(Line(f"request {request.id}", points, len(out), names if before else names[1:]))
    shown = {0, *range(len(out) - _LABELLED + 1, len(out))}
    return [line if i in shown else Line("", line.points, line.series, line.names) for i, line in enumerate(out)]
