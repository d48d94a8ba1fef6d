"""`demur protect`: what people are told about a decision, and whether it outlives other people's deletions."""

from __future__ import annotations

from typing import Annotated

import typer

from demur.cli import options

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True)


@app.callback()
def _protect() -> None:
    """Tell people what would change a decision, so that it stays true when others have their data deleted."""


@app.command("recourse")
def recourse(
    data: Annotated[str, typer.Option(metavar="TABLE", help="What the model is fitted to: .csv, .csv.gz or .parquet.")],
    target: Annotated[str, typer.Option(metavar="COLUMN", help="The column with the decision, of two values.")],
    query: Annotated[str, typer.Option(metavar="TABLE", help="The people who ask, in the same columns.")],
    out: options.RunOut,
    favourable: Annotated[
        str | None, typer.Option(metavar="VALUE", show_default="the last", help="The decision that is a yes.")
    ] = None,
    model: Annotated[
        str, typer.Option(help="linear, mlp, tree or forest, fitted here; or the folder of a classifier.")
    ] = "linear",
    k: Annotated[float, typer.Option("--k", help="Deletions to withstand: a share of the rows, or a number.")] = 0.005,
    delta: Annotated[
        str, typer.Option(help="Margin over the worst case; auto seeks the least one that a true refit confirms.")
    ] = "auto",
    immutable: Annotated[
        str | None, typer.Option(metavar="A,B", show_default="none", help="Columns that nobody can change.")
    ] = None,
    ridge: Annotated[float | None, typer.Option(show_default="1e-3; mlp 3e-3", help="Penalty on the weights.")] = None,
    damping: Annotated[
        float | None, typer.Option(show_default="0; mlp 1e-3", help="Added to the curvature's diagonal.")
    ] = None,
    deleted: Annotated[float, typer.Option(help="Share of the rows that each random deletion takes.")] = 0.01,
    repeats: Annotated[int, typer.Option(min=0, help="Random deletions to try, each with a refit.")] = 100,
    seed: options.Seed = None,
) -> None:
    """Say what would have to change for a yes, and keep that true whichever k training rows are deleted.

    Example: demur protect recourse --data compas.csv --target score --query asking.csv --immutable sex --out run
    """
    from rich.console import Console

    from demur.errors import UsageError
    from demur.protect import RecourseSettings, recourse_run
    from demur.training import progress_bar

    try:
        margin = delta if delta == "auto" else float(delta)
    except ValueError:
        raise UsageError(f"--delta {delta}: give a number or auto") from None
    settings = RecourseSettings(
        data=data,
        target=target,
        query=query,
        favourable=favourable,
        model=model,
        k=k,
        delta=margin,
        immutable=tuple(name.strip() for name in immutable.split(",")) if immutable else (),
        ridge=ridge,
        damping=damping,
        deleted=deleted,
        repeats=repeats,
        seed=seed or 0,
    )
    with progress_bar() as bar:
        task = bar.add_task("recourse", total=None, note="")
        answers = recourse_run(
            settings, out, lambda what, done, total: bar.update(task, completed=done, total=total, note=what)
        )
    console = Console(emoji=False)
    for sentence in answers.sentences:
        console.print(sentence, markup=False, highlight=False, soft_wrap=True)
    console.print(_summary({r.metric: r for r in answers.results}, settings.deleted))
    console.print(
        f"Cost in units of {answers.scaling}; {answers.rows} training rows; {out}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _summary(results, deleted: float):  # type: ignore[no-untyped-def]
    """Robust answers beside plain ones."""
    from rich.table import Table

    lines = {
        "mean cost": "recourse_cost",
        f"accepted after random deletions of {deleted:g}": "recourse_random",
        "accepted after the worst deletions": "recourse_worst",
    }
    table = Table("", "robust", "without deletions in mind", box=None)
    for label, metric in lines.items():
        if metric in results:
            cells = [results[name] for name in (metric, f"{metric}_plain")]
            table.add_row(label, *(f"{r.value:.3f} [{r.low:.3f}, {r.high:.3f}]" for r in cells))
    return table
