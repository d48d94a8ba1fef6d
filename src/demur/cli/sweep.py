"""`demur sweep`: many forgetting runs, compared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from demur.cli import options
from demur.cli.watching import watcher
from demur.errors import DemurError, UsageError

if TYPE_CHECKING:
    from demur.sweeps import Sweep

__all__ = ["sweep"]


def sweep(
    target: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE.yaml|MODEL|FOLDER",
            help="A recipe, or the model to change; with --report the folder of a sweep.",
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="Folder of the sweep.", show_default=False)] = None,
    report: Annotated[bool, typer.Option("--report", help="Only report on a sweep that was run.")] = False,
    forget: Annotated[str | None, typer.Option(help="Rows to forget.")] = None,
    retain: Annotated[str | None, typer.Option(help="Rows to keep.")] = None,
    holdout: Annotated[str | None, typer.Option(help="Rows never trained on, for membership inference.")] = None,
    objectives: Annotated[str | None, typer.Option(help="Objectives to try, as npo,simnpo.")] = None,
    grid: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=A,B", help="Values of a setting, or of OBJECTIVE.OPTION; may be repeated."),
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A setting of demur forget for all runs; may be repeated."),
    ] = None,
    seeds: Annotated[str | None, typer.Option(show_default="0", help="Seeds, as 1,2,3 or 1-5.")] = None,
    samples: Annotated[int | None, typer.Option(help="Try so many settings drawn from the grid.")] = None,
    suite: Annotated[str | None, typer.Option(show_default="tofu", help="What to measure after each run.")] = None,
    reference: Annotated[str | None, typer.Option(help="Gold model that never saw the forget rows.")] = None,
    attack: Annotated[
        bool | None, typer.Option("--attack/--no-attack", show_default="attack", help="Relearn after each run.")
    ] = None,
    budget: Annotated[str | None, typer.Option(help="Time for the whole sweep, as 90m or 2h.")] = None,
    max_runs: Annotated[int | None, typer.Option(help="The most runs of the whole sweep.")] = None,
    jobs: Annotated[int | None, typer.Option(show_default="one a core", help="Runs at a time.")] = None,
    ray: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Run on a Ray cluster, or local.")] = None,
) -> None:
    """Try objectives, settings and seeds within a budget, and report which settings no other beats.

    Stopped or killed, the same command goes on with the runs that are not done yet.

    Example: demur sweep lab:almanac --forget lab:almanac:forget --retain lab:almanac:retain --reference
    lab:almanac-gold --objectives npo,simnpo --grid learning_rate=1e-4,5e-4 --seeds 1-3 --out sweeps/first
    """
    if report:
        from demur.sweeps import read_sweep

        _show(read_sweep(target))
        return
    if out is None:
        raise UsageError("a sweep needs a folder: pass --out FOLDER")
    from demur.sweeps import SweepSettings, run_sweep

    recipe = target if target.endswith((".yaml", ".yml")) else None
    given: dict[str, Any] = {
        "settings": {
            **options.key_values(setting or (), "--set"),
            "model": None if recipe else target,
            "forget": forget,
            "retain": retain,
            "holdout": holdout,
        },
        "objectives": _words(objectives),
        "grid": {name: _words(str(text)) for name, text in _pairs(grid or ())} or None,
        "seeds": options.parse_seeds(seeds),
        "samples": samples,
        "audit": {"suite": suite, "reference": reference},
        "budget": budget,
        "max_runs": max_runs,
    }
    settings = SweepSettings.make(recipe, **given)
    if attack is False:
        settings = settings.model_copy(update={"attack": None})
    try:
        with watcher("all runs", "done before") as watch:
            done = run_sweep(settings, out, jobs=jobs, ray=ray, watch=watch)
    except KeyboardInterrupt:
        raise DemurError(f"stopped; finished runs are kept in {out}: the same command goes on") from None
    _show(done)
    if (done.trials["status"] == "failed").any():
        raise typer.Exit(1)


def _pairs(grid: Sequence[str]) -> list[tuple[str, str]]:
    found = [pair.partition("=") for pair in grid]
    for pair, (name, equals, text) in zip(grid, found, strict=True):
        if not equals or not name or not text:
            raise UsageError(f"--grid {pair!r} is not NAME=VALUE,VALUE")
    return [(name.strip(), text) for name, _, text in found]


def _words(text: str | None) -> list[Any] | None:
    """Values between commas, read as YAML."""
    if text is None:
        return None
    return list(options.key_values([f"{i}={word.strip()}" for i, word in enumerate(text.split(","))]).values())


def _show(done: Sweep) -> None:
    """Write tables and report, and print the settings, those of the front first."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    from demur.reports import number
    from demur.sweeps import recommend, write_sweep_report
    from demur.sweeps.report import RECIPE, columns, span, verdict
    from demur.sweeps.table import write_tables

    write_tables(done)
    path = write_sweep_report(done)
    found = columns(done)
    table = Table("no.", Column("setting", overflow="fold"), title="mean over seeds, smallest and largest in brackets")
    for column in found:
        table.add_column(f"{column.label} {column.arrow}")
    for heading in ("seeds", "front"):
        table.add_column(heading)
    for point in sorted(done.points, key=lambda p: (not p.on_front, not p.compared, p.number)):
        cells = []
        for column in found:
            value = point.measures.get(column.name)
            cells.append("–" if value is None else f"{number(value.mean)} [dim]{escape(span(value))}[/]")
        label = escape(point.configuration.label)
        table.add_row(str(point.number), label, *cells, str(len(point.trials)), verdict(point))
    console = Console(emoji=False)
    console.print(table)
    counts = done.trials["status"].value_counts()
    console.print(", ".join(f"{counts[status]} {status}" for status in counts.index), highlight=False)
    for sentence in done.missing:
        console.print(sentence, style="yellow", highlight=False, markup=False)
    choice, rule = recommend(done)
    said = f"take {choice.configuration.label} ({RECIPE})" if choice else "no setting to recommend"
    console.print(f"{said}: {rule}", highlight=False, markup=False)
    typer.echo(f"report: {path}")
