"""Plots as SVG text: points with intervals, and lines through epochs or steps.

The SVG stands by itself in a file, or inline in a page. Its colours are CSS variables that follow the reader's light or
dark scheme; a page that defines the same variables overrides them. Runs differ by colour and by marker shape, and every
series is labelled at its place, so that nothing depends on colour alone.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from demur.reports.axes import SHAPES, Box, Scale, place_label, shape_path, text_width
from demur.reports.evidence import Role

__all__ = [
    "COLOURS",
    "STYLE",
    "Line",
    "Mark",
    "forgetting_plot",
    "lines",
    "marker",
    "quality_plot",
    "quality_scale",
    "scatter",
    "trajectory_plot",
]

COLOURS = 8
WIDTH, HEIGHT = 520.0, 400.0
PLOT = Box(70.0, 18.0, WIDTH - 18.0, HEIGHT - 56.0)
TEXT = 16.0  # labels are placed for the size they have on a narrow screen

_LIGHT = ["#1f6f9f", "#b4531a", "#3d7a3a", "#8b4a86", "#8a6d10", "#b03a4c", "#2f7f7a", "#5a5aa8"]
_DARK = ["#6db3de", "#e39a66", "#8cc488", "#c993c4", "#d5b75a", "#e88a98", "#79c7c1", "#a3a3e6"]


def _variables(ink: str, quiet: str, rule: str, paper: str, colours: list[str]) -> str:
    named = {"ink": ink, "quiet": quiet, "rule": rule, "paper": paper}
    named |= {f"run-{i}": colour for i, colour in enumerate(colours)}
    return "".join(f"--{name}:{value};" for name, value in named.items())


LIGHT_VARIABLES = _variables("#1c232b", "#5a6470", "#d9dcdf", "#ffffff", _LIGHT)
DARK_VARIABLES = _variables("#e5e7ea", "#a1a9b3", "#383f48", "#15181d", _DARK)

STYLE = (
    ".plot{font-family:-apple-system,'Segoe UI',Roboto,'Noto Sans',Ubuntu,Cantarell,'Helvetica Neue',Arial,sans-serif;"
    "font-size:13.5px}"
    ".plot text{fill:var(--ink)}.plot .tick text,.plot .note{fill:var(--quiet);font-size:12px}"
    ".plot .grid{stroke:var(--rule);stroke-width:1}.plot .frame{stroke:var(--quiet);stroke-width:1}"
    ".plot .rule{stroke:var(--quiet);stroke-width:1;stroke-dasharray:4 4}"
    ".plot .band{fill:var(--ground,var(--rule));opacity:.8}"
    ".plot .lead{stroke:var(--quiet);stroke-width:.8}"
    ".plot .label{paint-order:stroke;stroke:var(--paper);stroke-width:4px;stroke-linejoin:round}"
    ".plot .fixed{fill:var(--ink);stroke:var(--paper);stroke-width:1.2}.plot .fixed-span{stroke:var(--ink)}"
    ".plot .ring{fill:var(--paper);stroke:var(--ink);stroke-width:2.2}"
    ".plot .span{stroke-width:1.6;fill:none}.plot .path{stroke-width:2;fill:none;stroke-linejoin:round}"
    + "".join(
        f".plot .c{i}{{fill:var(--run-{i});stroke:var(--paper);stroke-width:1.2}}.plot .s{i}{{stroke:var(--run-{i})}}"
        for i in range(COLOURS)
    )
)


@dataclass(frozen=True)
class Mark:
    """A point of a scatter plot.

    Attributes:
        label: the text beside it.
        x, y: its place, in the unit of the scales (for a log10 scale the logarithm; −inf for a p-value of 0).
        x_low, x_high, y_low, y_high: ends of its intervals; None where there is none.
        series: number of the run, which picks colour and shape; None for fixed points such as before and gold.
        role: "run", "before" or "reference"; fixed points are drawn in ink, before as a ring, gold as a star.
        link: what opens when the point is followed; nothing where it is empty.
        name: what it is called when it is pointed at; the label by default.
    """

    label: str
    x: float
    y: float
    x_low: float | None = None
    x_high: float | None = None
    y_low: float | None = None
    y_high: float | None = None
    series: int | None = None
    role: Role = "run"
    link: str = ""
    name: str = ""


@dataclass(frozen=True)
class Line:
    """A line through points in order.

    Attributes:
        label: the text at its end.
        points: the points, in the unit of the scales.
        series: number of the run, which picks colour and shape.
        names: what each point is, for instance "epoch 3"; shown when it is pointed at.
    """

    label: str
    points: Sequence[tuple[float, float]]
    series: int = 0
    names: Sequence[str] = ()


def scatter(
    marks: Sequence[Mark],
    x: Scale,
    y: Scale,
    *,
    title: str,
    description: str,
    rules: Sequence[tuple[float, str]] = (),
    standalone: bool = False,
) -> str:
    """Points with intervals.

    Args:
        marks: the points.
        x, y: the axes.
        title: accessible title.
        description: accessible description: what is shown and what to see.
        rules: dashed horizontal lines: value and text.
        standalone: carry the style, for a file of its own; a page includes `STYLE` once instead.

    Returns:
        The SVG element as text.
    """
    return _draw([], marks, x, y, title, description, rules, standalone)


def lines(
    series: Sequence[Line],
    x: Scale,
    y: Scale,
    *,
    title: str,
    description: str,
    marks: Sequence[Mark] = (),
    rules: Sequence[tuple[float, str]] = (),
    standalone: bool = False,
) -> str:
    """Lines through points in order, for instance epochs, with fixed points beside them; arguments as in `scatter`."""
    return _draw(series, marks, x, y, title, description, rules, standalone)


def marker(series: int) -> str:
    """The marker of a run as a small SVG of its own, for a legend beside the plots."""
    path = shape_path(_shape(series), 8.0, 8.0, 5.5)
    return (
        '<svg class="plot marker" viewBox="0 0 16 16" width="16" height="16" aria-hidden="true">'
        f'<path class="c{series % COLOURS}" d="{path}"/></svg>'
    )


def forgetting_plot(marks: Sequence[Mark], measure: str, utility: str = "Model utility") -> str:
    """Forgetting against utility: `y` of the marks is the measure on the forget set, `x` the utility."""
    return scatter(
        marks,
        Scale.around(f"{utility} →", [m.x for m in marks]),
        Scale.around(measure, [m.y for m in marks]),
        title=f"{measure} against {utility.lower()}",
        description=_told(marks, utility.lower(), measure.lower(), log=False),
    )


def quality_plot(marks: Sequence[Mark], threshold: float = 0.05, utility: str = "Model utility") -> str:
    """Forget quality against utility; `y` of the marks is the base-10 logarithm of the p-value."""
    return scatter(
        marks,
        Scale.around(f"{utility} →", [m.x for m in marks]),
        quality_scale([m.y for m in marks]),
        title=f"Forget quality against {utility.lower()}",
        description=_told(marks, utility.lower(), "forget quality", log=True),
        rules=[(math.log10(threshold), f"p = {threshold:g}")],
    )


def quality_scale(logs: Sequence[float]) -> Scale:
    """The axis of forget quality that holds these base-10 logarithms of p-values."""
    return Scale.powers("Forget quality (p) →", logs)


def trajectory_plot(series: Sequence[Line], marks: Sequence[Mark]) -> str:
    """Forget probability against retain probability over the epochs of each run."""
    points = [p for line in series for p in line.points] + [(m.x, m.y) for m in marks]
    return lines(
        series,
        Scale.around("Retain set probability →", [p[0] for p in points]),
        Scale.around("Forget set probability", [p[1] for p in points]),
        title="Forget and retain probability over the epochs",
        description="; ".join(
            f"{line.label} from retain {line.points[0][0]:.2f}, forget {line.points[0][1]:.2f} "
            f"to retain {line.points[-1][0]:.2f}, forget {line.points[-1][1]:.2f}"
            for line in series
            if line.points
        ),
        marks=marks,
    )


def _shape(series: int) -> str:
    """The shape of a run's marker; runs that share a colour differ in shape."""
    return SHAPES[(series + series // COLOURS) % len(SHAPES)]


def _told(marks: Sequence[Mark], x: str, y: str, log: bool) -> str:
    def value(mark: Mark) -> str:
        return f"1e{mark.y:.0f}" if log else f"{mark.y:.2f}"

    return "; ".join(f"{m.label}: {x} {m.x:.2f}, {y} {value(m)}" for m in marks)


def _draw(
    series: Sequence[Line],
    marks: Sequence[Mark],
    x: Scale,
    y: Scale,
    title: str,
    description: str,
    rules: Sequence[tuple[float, str]],
    standalone: bool,
) -> str:
    taken: list[Box] = []
    body = [*_frame(x, y), *_rules(rules, y, taken)]
    wanted: list[tuple[str, float, float]] = []
    for line in series:
        body += _line(line, x, y, taken, wanted)
    for mark in sorted(marks, key=lambda m: m.role != "run"):
        body += _mark(mark, x, y, taken, wanted)
    for text, px, py in wanted:
        body += _label(text, px, py, taken)
    key = "plot-" + hashlib.sha256("".join([title, description, *body]).encode()).hexdigest()[:10]
    scheme = f"@media(prefers-color-scheme:dark){{:root{{{DARK_VARIABLES}}}}}"
    style = f"<style>:root{{{LIGHT_VARIABLES}}}{scheme}{STYLE}</style>" if standalone else ""
    paper = f'<rect width="{WIDTH:.0f}" height="{HEIGHT:.0f}" style="fill:var(--paper)"/>' if standalone else ""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="plot" viewBox="0 0 {WIDTH:.0f} {HEIGHT:.0f}" role="img" '
        f'aria-labelledby="{key}-t {key}-d"><title id="{key}-t">{escape(title)}</title>'
        f'<desc id="{key}-d">{escape(description)}</desc>{style}{paper}{"".join(body)}</svg>'
    )


def _at(x: Scale, y: Scale, px: float, py: float) -> tuple[float, float]:
    across = PLOT.left + x.place(px) * (PLOT.right - PLOT.left)
    return across, PLOT.bottom - y.place(py) * (PLOT.bottom - PLOT.top)


def _frame(x: Scale, y: Scale) -> list[str]:
    out = []
    for value, text in y.ticks():
        at = _at(x, y, x.low, value)[1]
        out.append(f'<line class="grid" x1="{PLOT.left}" x2="{PLOT.right}" y1="{at:.1f}" y2="{at:.1f}"/>')
        anchor = f'x="{PLOT.left - 9}" y="{at + 4:.1f}" text-anchor="end"'
        out.append(f'<g class="tick"><text {anchor}>{text}</text></g>')
    if y.floor:
        at = _at(x, y, x.low, -math.inf)[1]
        out.append(f'<g class="tick"><text x="{PLOT.left - 9}" y="{at + 4:.1f}" text-anchor="end">less</text></g>')
        edge = PLOT.bottom - y.place(y.low) * (PLOT.bottom - PLOT.top)
        size = f'x="{PLOT.left}" y="{edge:.1f}" width="{PLOT.right - PLOT.left}" height="{PLOT.bottom - edge:.1f}"'
        out.append(f'<rect class="band" {size}/>')
    for value, text in x.ticks():
        at = _at(x, y, value, y.low)[0]
        out.append(f'<line class="frame" x1="{at:.1f}" x2="{at:.1f}" y1="{PLOT.bottom}" y2="{PLOT.bottom + 5}"/>')
        anchor = f'x="{at:.1f}" y="{PLOT.bottom + 20}" text-anchor="middle"'
        out.append(f'<g class="tick"><text {anchor}>{text}</text></g>')
    out.append(f'<line class="frame" x1="{PLOT.left}" x2="{PLOT.right}" y1="{PLOT.bottom}" y2="{PLOT.bottom}"/>')
    middle = (PLOT.top + PLOT.bottom) / 2
    out.append(f'<text x="{PLOT.right}" y="{HEIGHT - 12}" text-anchor="end">{escape(x.label)}</text>')
    turn = f'transform="translate(14 {middle:.0f}) rotate(-90)" text-anchor="middle"'
    out.append(f"<text {turn}>{escape(y.label)}</text>")
    return out


def _rules(rules: Sequence[tuple[float, str]], y: Scale, taken: list[Box]) -> list[str]:
    out = []
    for value, text in rules:
        if not y.low <= value <= y.high:
            continue
        at = PLOT.bottom - y.place(value) * (PLOT.bottom - PLOT.top)
        out.append(f'<line class="rule" x1="{PLOT.left}" x2="{PLOT.right}" y1="{at:.1f}" y2="{at:.1f}"/>')
        out.append(f'<text class="note" x="{PLOT.left + 6}" y="{at + 14:.1f}">{escape(text)}</text>')
        taken.append(Box(PLOT.left, at - 1, PLOT.right, at + 1))
        taken.append(Box(PLOT.left + 4, at + 2, PLOT.left + 10 + text_width(text, 12), at + 18))
    return out


def _mark(mark: Mark, x: Scale, y: Scale, taken: list[Box], wanted: list[tuple[str, float, float]]) -> list[str]:
    px, py = _at(x, y, mark.x, mark.y)
    span = "span fixed-span" if mark.series is None else f"span s{mark.series % COLOURS}"
    out = []
    if mark.x_low is not None and mark.x_high is not None:
        left, right = _at(x, y, mark.x_low, mark.y)[0], _at(x, y, mark.x_high, mark.y)[0]
        out.append(f'<path class="{span}" d="M{left:.1f} {py:.1f}H{right:.1f}"/>')
        taken.append(Box(left, py - 1, right, py + 1))
    if mark.y_low is not None and mark.y_high is not None:
        low, high = _at(x, y, mark.x, mark.y_low)[1], _at(x, y, mark.x, mark.y_high)[1]
        out.append(f'<path class="{span}" d="M{px:.1f} {low:.1f}V{high:.1f}"/>')
        taken.append(Box(px - 1, high, px + 1, low))
    shape, size = {"before": ("circle", 5.5), "reference": ("star", 6.5)}.get(mark.role, ("", 5.5))
    if mark.series is not None and not shape:
        shape = _shape(mark.series)
    kind = "fixed" if mark.series is None else f"c{mark.series % COLOURS}"
    kind += " ring" if mark.role == "before" else ""
    text = mark.label
    if y.floor and y.cuts(mark.y) and y.kind == "log10":
        text += " (0)" if math.isinf(mark.y) else f" (1e{math.floor(mark.y)})"
    tip = f"<title>{escape(mark.name or text)}</title>"
    path = f'<path class="{kind} mark" d="{shape_path(shape or "circle", px, py, size)}">{tip}</path>'
    out.append(f'<a href="{escape(mark.link)}">{path}</a>' if mark.link else path)
    taken.append(Box(px - size, py - size, px + size, py + size))
    wanted.append((text, px, py))
    return out


def _line(line: Line, x: Scale, y: Scale, taken: list[Box], wanted: list[tuple[str, float, float]]) -> list[str]:
    if not line.points:
        return []
    places = [_at(x, y, *point) for point in line.points]
    colour, shape = line.series % COLOURS, _shape(line.series)
    out = [f'<path class="path s{colour}" d="M{"L".join(f"{px:.1f} {py:.1f}" for px, py in places)}"/>']
    for i, (px, py) in enumerate(places):
        last = i == len(places) - 1
        name = f"{line.label}, {line.names[i]}" if i < len(line.names) else line.label
        size = 5.5 if last else 3.0
        path = shape_path(shape, px, py, size)
        out.append(f'<path class="c{colour} mark" d="{path}"><title>{escape(name)}</title></path>')
        taken.append(Box(px - size, py - size, px + size, py + size))
    for (ax, ay), (bx, by) in itertools.pairwise(places):
        steps = max(1, int(math.hypot(bx - ax, by - ay) / 8))
        inner = [(ax + (bx - ax) * k / steps, ay + (by - ay) * k / steps) for k in range(1, steps)]
        taken.extend(Box(cx - 2, cy - 2, cx + 2, cy + 2) for cx, cy in inner)
    wanted.append((line.label, *places[-1]))
    return out


def _label(text: str, px: float, py: float, taken: list[Box]) -> list[str]:
    shown = text if len(text) <= 34 else text[:33] + "…"
    width, height = text_width(shown, TEXT) + 4, TEXT + 3
    within = Box(PLOT.left + 2, PLOT.top - 14, WIDTH - 2, PLOT.bottom - 2)
    box, far = place_label(px, py, width, height, taken, within)
    taken.append(box)
    out = []
    if far:
        end_x, end_y = min(max(px, box.left), box.right), min(max(py, box.top), box.bottom)
        out.append(f'<path class="lead" d="M{px:.1f} {py:.1f}L{end_x:.1f} {end_y:.1f}"/>')
    out.append(f'<text class="label" x="{box.left + 2:.1f}" y="{box.bottom - 4:.1f}">{escape(shown)}</text>')
    return out
