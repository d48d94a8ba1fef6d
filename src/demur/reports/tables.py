"""Numbers as people read them, and the tables of the report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from demur.reports.evidence import Model
from demur.reports.glossary import ARROWS, GROUPS, HEADLINE, Description, Kind, describe
from demur.runs import Better, Result

__all__ = [
    "Cell",
    "Column",
    "Row",
    "Table",
    "cell",
    "footnotes",
    "full_table",
    "headline_table",
    "interval",
    "missing_reason",
    "number",
    "p_value",
]

MINUS = "−"


def number(value: float | None, kind: Kind = "share") -> str:
    """A number with as many digits as carry meaning: "0.62", "0.0013", "3e-6", "−99.8"; "–" for None.

    Args:
        value: the number.
        kind: "p" writes it as a p-value, "percent" with one decimal, "share" and "log10" by size.
    """
    if value is None or math.isnan(value):
        return "–"
    if kind == "p":
        return p_value(value)
    if math.isinf(value):
        return "∞" if value > 0 else f"{MINUS}∞"
    size = abs(value)
    if kind == "percent" or (kind == "log10" and size < 1000):
        text = f"{size:.1f}"
    elif size == 0 or 0.01 <= size < 10:
        text = f"{size:.2f}"
    elif size >= 1e5:
        text = f"{size:.1e}".replace("e+0", "e").replace("e+", "e")
    elif size >= 10:
        text = f"{size:.1f}" if size < 1000 else f"{size:.0f}"
    elif size >= 0.0001:
        text = f"{size:.2g}" if size >= 0.001 else f"{size:.1g}"
    else:
        text = f"{size:.0e}".replace("e-0", "e-")
    return (MINUS if value < 0 and float(text) != 0 else "") + text


def interval(value: float | None, low: float | None, high: float | None, kind: Kind = "share") -> str:
    """A value with its 95 % interval: "0.62 [0.58, 0.66]"; the value alone where it has none."""
    if value is None or low is None or high is None:
        return number(value, kind)
    if kind == "share" and 0.01 <= abs(value) < 10:  # ends are no more exact than the value
        low, high = round(low, 2), round(high, 2)
    return f"{number(value, kind)} [{number(low, kind)}, {number(high, kind)}]"


def p_value(p: float | None, log10: float | None = None) -> str:
    """A p-value: "0.42", "0.012", "3e-21"; "–" for None.

    Args:
        p: the p-value; None where there is none.
        log10: its base-10 logarithm, for values too small for a float.
    """
    if p is None and log10 is None:
        return "–"
    if p is None or (p == 0 and log10 is not None and math.isfinite(log10)):
        assert log10 is not None
        if log10 >= -300:
            return p_value(10.0**log10)
        exponent = math.floor(log10)
        digit = round(10 ** (log10 - exponent))
        return f"{digit}e{exponent}" if digit < 10 else f"1e{exponent + 1}"
    if p == 0:
        return "below 1e-300"
    if p >= 0.1:
        return f"{p:.2f}"
    if p >= 0.001:
        return f"{p:.2g}"
    return f"{p:.0e}".replace("e-0", "e-")


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Attributes:
        value: the number as text, or "not measured".
        detail: its interval, in brackets; or its logarithm; empty where there is none.
        n: samples that went in; None where it was not measured.
        unscored: samples left out because they could not be scored.
        sort: what the column sorts by; None goes last.
        reason: why there is no number; empty where there is one.
    """

    value: str
    detail: str = ""
    n: int | None = None
    unscored: int = 0
    sort: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Column:
    """A metric as it heads a column or a line."""

    metric: str
    label: str
    arrow: str
    direction: str
    definition: str


@dataclass(frozen=True)
class Row:
    """One line of a table: a model's numbers, or in the full table a metric's numbers."""

    label: str
    role: str
    cells: tuple[Cell, ...]
    column: Column | None = None


@dataclass(frozen=True)
class Table:
    """A table; the full table has one block of rows per group of metrics."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    title: str = ""


def cell(result: Result | None, description: Description, reason: str, log10: Result | None = None) -> Cell:
    """A result as a table cell.

    Args:
        result: the result; None where the metric was not measured.
        description: the metric's glossary entry.
        reason: why there is no number, shown when there is none.
        log10: for a p-value, the result that holds its logarithm.
    """
    if result is None:
        return Cell("not measured", reason=reason)
    exponent = log10.value if log10 is not None else None
    if result.value is None and exponent is None:
        return Cell("not measured", reason=reason)
    if description.kind == "p":
        shown, order = p_value(result.value, exponent), _log10(result.value, exponent)
        return Cell(shown, f"log10 {number(order, 'log10')}", result.n, result.unscored, order)
    text = interval(result.value, result.low, result.high, description.kind)
    value, _, rest = text.partition(" [")
    return Cell(value, f"[{rest}" if rest else "", result.n, result.unscored, result.value)


def _log10(p: float | None, log10: float | None) -> float | None:
    if log10 is not None:
        return log10
    return None if p is None else math.log10(p) if p > 0 else -math.inf


def missing_reason(metric: str, model: Model, models: Sequence[Model]) -> str:
    """Why a model has no number for a metric, as far as the run folders tell."""
    if metric.startswith("forget_quality"):
        if model.role == "reference":
            return "the others are compared with it"
        if not model.has_reference:
            return "needs a gold model: audit with --reference"
    if metric in model.notes:
        return model.notes[metric]
    result = model.results.get(metric)
    if result is not None:
        lost = result.unscored and not result.n
        return f"none of {result.unscored} could be scored" if lost else "could not be computed"
    if (metric == "privleak" or metric.startswith("mia_")) and not any(metric in m.results for m in models):
        return "needs hold-out rows"
    return "not part of this audit"


def headline_table(models: Sequence[Model]) -> Table:
    """The main numbers: one row a model, one column a metric of `HEADLINE`."""
    columns = tuple(_column(metric, models) for metric in HEADLINE)
    rows = [Row(m.label, m.role, tuple(_cell_of(metric, m, models) for metric in HEADLINE)) for m in models]
    return Table(columns, tuple(rows))


def footnotes(models: Sequence[Model]) -> list[str]:
    """What is to be known about numbers of the main table that are there."""
    seen: dict[str, list[str]] = {}
    for model in models:
        for metric in HEADLINE:
            result = model.results.get(metric)
            if metric in model.notes and result is not None and result.value is not None:
                seen.setdefault(f"{describe(metric).label}: {model.notes[metric]}", []).append(model.label)
    return [f"{note} ({', '.join(labels)})." for note, labels in seen.items()]


def full_table(models: Sequence[Model]) -> list[Table]:
    """Every metric that any model has: one table a group, one row a metric, one cell a model."""
    metrics = sorted({metric for model in models for metric in model.results})
    tables = []
    for group in GROUPS:
        rows = []
        for metric in metrics:
            if describe(metric).group == group:
                column = _column(metric, models)
                cells = tuple(_cell_of(metric, model, models) for model in models)
                rows.append(Row(column.label, "", cells, column))
        if rows:
            tables.append(Table((), tuple(rows), group))
    return tables


def _cell_of(metric: str, model: Model, models: Sequence[Model]) -> Cell:
    log10 = model.results.get("forget_quality_log10") if metric == "forget_quality" else None
    return cell(model.results.get(metric), describe(metric), missing_reason(metric, model, models), log10)


def _column(metric: str, models: Sequence[Model]) -> Column:
    known = describe(metric)
    stated = [m.results[metric].better for m in models if metric in m.results]
    better: Better = next((b for b in stated if b != "none"), known.better)
    arrow, direction = ARROWS[better]
    return Column(metric, known.label, arrow, direction, known.definition)
