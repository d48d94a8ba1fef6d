"""The verbs of `demur guard` for models with refusal tokens: the curve of every threshold, and setting the dial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from demur.cli import options
from demur.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from demur.guards import RefusalCurve, RefusalDial, RefusalScores, RefusalTokenGuard

__all__ = ["calibrate", "curve", "numbers", "open_taught"]

_Taught = Annotated[str, typer.Argument(metavar="RUN", show_default=False, help="Run or model with refusal tokens.")]
_Labelled = Annotated[str, typer.Option(help="Rows with a label (refuse, abstain or comply) and maybe a category.")]
_Temperature = Annotated[float, typer.Option(help="Of the softmax that thresholds are compared with.")]
_BatchSize = Annotated[int, typer.Option(min=1, help="Prompts in one forward pass.")]
_SHOWN = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)


def curve(
    run: _Taught,
    rows: _Labelled,
    out: Annotated[Path | None, typer.Option(help="Write every point to this CSV file.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the curve into this SVG file.")] = None,
    temperature: _Temperature = 1.0,
    batch_size: _BatchSize = 32,
    template: options.Template = None,
    device: options.Device = None,
) -> None:
    """Refusals against over-refusals at every threshold, from one pass: nothing is trained or generated again.

    Example: demur guard curve runs/tokens --rows lab:charter:test --plot curve.svg
    """
    from rich.console import Console

    from demur.files import atomic_write, require_writable
    from demur.guards import RefusalDial, refusal_curve
    from demur.reports.refusal_view import draw_curves

    for path in (out, plot):
        if path is not None:
            require_writable(path)
    guard = open_taught(run, RefusalDial(temperature=temperature), batch_size, template, device)
    scores, refuses, _ = _score(guard, rows)
    found = refusal_curve(scores.refusal, refuses)
    Console(emoji=False).print(_table(found))
    typer.echo(f"area under the curve {found.auc:.3f}; set a dial with: demur guard calibrate {run} --rows {rows}")
    if out is not None:
        points = zip(
            *(values.tolist() for values in (found.thresholds, found.refusal_rate, found.over_refusal)), strict=True
        )
        lines = ["threshold,refusal_rate,over_refusal", *(",".join(map(repr, point)) for point in points)]
        with atomic_write(out) as temporary:
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    if plot is not None:
        drawing, _ = draw_curves({Path(run).name: found}, standalone=True)
        with atomic_write(plot) as temporary:
            temporary.write_text(drawing, encoding="utf-8")


def calibrate(
    run: _Taught,
    rows: _Labelled,
    out: Annotated[Path, typer.Option(help="Folder to write the dial to, for demur guard ask and --guard.")],
    rate: Annotated[
        list[str] | None,
        typer.Option(metavar="[CATEGORY=]SHARE", help="Share of the rows to refuse that must be; may be repeated."),
    ] = None,
    max_over_refusal: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Share of the rows to answer that may be refused.")
    ] = None,
    bias: Annotated[
        list[str] | None,
        typer.Option(metavar="CATEGORY=NUMBER", help="Added to a token's logit; 'respond' is that of an answer."),
    ] = None,
    temperature: _Temperature = 1.0,
    batch_size: _BatchSize = 32,
    template: options.Template = None,
    device: options.Device = None,
) -> None:
    """Set a model's refusal rate, for all or by category, or the highest over-refusal, without training it.

    Example: demur guard calibrate runs/tokens --rows lab:charter:test --rate harbour=0.9 --out guards/dial
    """
    from demur.files import require_writable
    from demur.guards import RefusalDial, RefusalTokenGuard
    from demur.guards import calibrate as set_dial

    require_writable(out)
    aims = numbers(rate, "--rate") if rate else None
    if (aims is None) == (max_over_refusal is None):
        raise UsageError("say what to aim for: --rate SHARE, --rate CATEGORY=SHARE, or --max-over-refusal SHARE")
    biases = numbers(bias, "--bias") if bias else {}
    if not isinstance(biases, Mapping):
        raise UsageError("--bias needs a category: --bias CATEGORY=NUMBER, or --bias respond=NUMBER")
    start = RefusalDial(temperature=temperature, logit_bias=biases)
    guard = open_taught(run, start, batch_size, template, device)
    scores, refuses, categories = _score(guard, rows)
    found = set_dial(scores, refuses, categories, refusal_rate=aims, max_over_refusal=max_over_refusal, dial=start)
    RefusalTokenGuard(guard.engine, guard.config, found.dial).save(out)
    thresholds = found.dial.threshold
    for name, (hits, n) in found.refused.items():
        at = thresholds[name] if isinstance(thresholds, Mapping) else thresholds
        typer.echo(f"{name}: threshold {at:.4g}, refuses {_share(hits, n)} of the rows to refuse")
    typer.echo(f"refuses {_share(*found.over)} of the rows to answer")
    for note in found.notes:
        typer.echo(f"note: {note}")
    typer.echo(f"{out}: set on {len(refuses)} rows; these rates are theirs, so audit it on others: --guard {out}")


def numbers(pairs: Sequence[str], option: str) -> float | dict[str, float]:
    """One number, or numbers by name, from what was written on the command line.

    Raises:
        UsageError: a value is no number, or one without a name stands beside others.
    """
    named: dict[str, float] = {}
    for pair in pairs:
        name, equals, value = pair.rpartition("=")
        try:
            number = float(value)
        except ValueError:
            raise UsageError(f"{option} {pair!r}: {value!r} is not a number") from None
        if not equals and len(pairs) > 1:
            raise UsageError(f"{option} {pair!r} is for everything: give it alone, or each with its CATEGORY=")
        if not equals:
            return number
        named[name.strip()] = number
    return named


def open_taught(
    run: str, dial: RefusalDial, batch_size: int = 32, template: str | None = None, device: str | None = None
) -> RefusalTokenGuard:
    """The model of a run or folder behind its refusal tokens.

    Raises:
        UsageError: it cannot be loaded, or was taught none.
    """
    from demur.guards import RefusalTokenGuard
    from demur.models import LocalEngine, load_model

    lm = load_model(run, template=template or "auto", device=device or "auto")  # type: ignore[arg-type]
    return RefusalTokenGuard(LocalEngine(lm, batch_size), dial=dial)


def _score(guard: RefusalTokenGuard, source: str) -> tuple[RefusalScores, list[bool], list[str | None]]:
    """One pass over labelled rows."""
    from demur.data import read_rows
    from demur.data.builders.refusal_tokens import labelled_prompts
    from demur.training import progress_bar

    prompts, refuses, categories = labelled_prompts(read_rows(source), source)
    with progress_bar() as bars:
        task = bars.add_task("reading prompts", total=len(prompts), note="")
        scores = guard.refusal_scores(prompts, lambda done: bars.advance(task, done))
    return scores, refuses, categories


def _table(found: RefusalCurve) -> Table:
    from rich.table import Table

    table = Table("threshold", "refused, to refuse", "refused, to answer", "F1", title="95 % intervals in brackets")
    for threshold in _SHOWN:
        rate, over = found.at(threshold)
        cells = (
            _share(round(rate * found.refuse_rows), found.refuse_rows, markup=True),
            _share(round(over * found.comply_rows), found.comply_rows, markup=True),
        )
        table.add_row(f"{threshold:g}", *cells, f"{found.f1(threshold):.3f}")
    table.caption = f"{found.refuse_rows} rows to refuse, {found.comply_rows} to answer"
    return table


def _share(hits: int, n: int, markup: bool = False) -> str:
    from demur.intervals import wilson

    if not n:
        return "none"
    low, high = wilson(hits, n)
    return f"{hits / n:.3f} {chr(92) if markup else ''}[{low:.3f}, {high:.3f}]"
