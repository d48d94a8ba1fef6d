"""`demur studies`: list, run and report the studies that re-check the papers' claims."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from demur.cli import options
from demur.cli.watching import watcher
from demur.errors import DemurError, UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from demur.studies.results import PartResult, StudyResult

__all__ = ["app"]

app = typer.Typer(help="Re-check the papers' claims at a size that runs here.", no_args_is_help=True)

_COLOURS = {"holds": "green", "does not hold": "red", "failed": "red", "not measured": "yellow"}


@app.command("list")
def list_studies(as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False) -> None:
    """List the studies, their settings and how long they take.

    Example: demur studies list
    """
    from demur.studies import studies

    rows = [
        {
            "study": slug,
            "paper": studies.get(slug).facts["paper"],
            "part": part.name,
            "seeds": part.seeds,
            "minutes_per_seed": part.minutes,
            "summary": part.summary,
        }
        for slug in studies.names()
        for part in studies.get(slug).facts["parts"]
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("study", "paper", "part", "seeds", "min", "what it shows")
    for row in rows:
        seeds = " ".join(map(str, row["seeds"]))
        table.add_row(row["study"], row["paper"], row["part"], seeds, f"{row['minutes_per_seed']:g}", row["summary"])
    Console(emoji=False).print(table)


def _claims_table(part: PartResult) -> Table:
    from rich.markup import escape
    from rich.table import Table

    from demur.studies.report import seed_by_seed, spread

    table = Table(show_lines=True)
    for heading in ("claim", "measured per seed", "threshold", "holds", "baselines"):
        table.add_column(heading, overflow="fold")
    for claim in part.claims:
        table.add_row(
            escape(claim.text) + (" [dim](ours)[/]" if claim.kind == "ours" else ""),
            seed_by_seed(claim.measured),
            claim.threshold,
            "[green]yes[/]" if claim.holds else "[bold red]no[/]",
            "\n".join(f"{escape(name)}: {spread(values)}" for name, values in claim.baselines.items()),
        )
    return table


def _print_result(result: StudyResult) -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console(emoji=False)
    for part in result.parts:
        seeds = ", ".join(map(str, part.seeds))
        colour = _COLOURS[part.verdict]
        console.print(f"\n[bold]{result.study} · {part.name}[/] (seeds {seeds}): [{colour}]{part.verdict}[/]")
        console.print(escape(part.summary), style="dim")
        if part.problem is not None:
            console.print(f"{part.verdict}: {escape(part.problem)}")
        elif part.claims:
            console.print(_claims_table(part))


def _json_targets(target: str | None, slugs: list[str]) -> dict[str, Path]:
    if target is None or target == "-":
        return {}
    path = Path(target)
    if path.is_dir() or target.endswith("/"):
        return {slug: path / f"{slug}.json" for slug in slugs}
    if len(slugs) > 1:
        raise UsageError(f"--json {target}: several studies need a folder; make it or end its name with /")
    return {slugs[0]: path}


@app.command("run")
def run(
    slugs: Annotated[
        list[str] | None, typer.Argument(metavar="SLUG", help="Which studies; all of `demur studies list` by default.")
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="Seeds, as 1,2,3 or 1-5; each part's own by default.")] = None,
    jobs: Annotated[int | None, typer.Option(help="Processes at a time; one per core by default.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the measurements; in the cache by default.")] = None,
    json_file: Annotated[
        str | None, typer.Option("--json", help="Write the result here; a folder for several studies, - for stdout.")
    ] = None,
) -> None:
    """Run studies and print claim by claim what was measured; exit code 0 only when every claim holds.

    Stopped or killed, the same command goes on with the seeds that are not measured yet.

    Example: demur studies run npo --seeds 1,2,3 --json results/studies/npo.json
    """
    from demur.files import cache_dir, require_writable, write_json
    from demur.studies import run_studies, studies

    slugs = list(dict.fromkeys(slugs or studies.names()))
    for slug in slugs:
        studies.get(slug)
    targets = _json_targets(json_file, slugs)
    wanted = options.parse_seeds(seeds)
    for path in targets.values():
        require_writable(path)
    try:
        with watcher("all seeds") as watch:
            results = run_studies(slugs, seeds=wanted, jobs=jobs, out=out, watch=watch)
    except KeyboardInterrupt:
        where = out or cache_dir() / "studies"
        raise DemurError(f"stopped; the seeds measured so far are kept in {where}: the same command goes on") from None
    for result in results:
        if result.study in targets:
            write_json(targets[result.study], result.model_dump(mode="json"))
    if json_file == "-":
        typer.echo(json.dumps([result.model_dump(mode="json") for result in results], indent=1, ensure_ascii=False))
    else:
        for result in results:
            _print_result(result)
    if any(result.verdict != "holds" for result in results):
        raise typer.Exit(1)


@app.command("report")
def report(
    results: Annotated[Path, typer.Option(help="Folder of stored results.")] = Path("results/studies"),
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("docs/results.md"),
) -> None:
    """Write the page of results from the stored results.

    Example: demur studies report --results results/studies --out docs/results.md
    """
    from demur.files import atomic_write
    from demur.studies import read_results, results_page

    page = results_page(read_results(results))
    with atomic_write(out) as temporary:
        temporary.write_text(page, encoding="utf-8")
    typer.echo(f"wrote {out}")
