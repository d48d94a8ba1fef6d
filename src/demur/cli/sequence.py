"""`demur sequence`: forget sets of texts one after another, and watch what is left."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from demur.cli import options

__all__ = ["sequence"]


def sequence(
    recipe: Annotated[Path, typer.Argument(help="YAML file of settings of demur forget: model, retain, objective, …")],
    forget: Annotated[list[str], typer.Option(help="Texts to forget; once for each request, in their order.")],
    out: Annotated[Path, typer.Option(help="Folder for the runs and the table.")],
    rows: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=SOURCE", show_default="the corpus's", help="Rows of a MUSE audit to measure; may be repeated."
        ),
    ] = None,
) -> None:
    """Forget sets of texts one after another, each from the last one's model, and measure all of them after each.

    Example: demur sequence sust.yaml --forget muse:News:sust:forget_1 --forget muse:News:sust:forget_2 --out runs/sust
    """
    from demur.audits.sequential import forget_in_turn
    from demur.training import ForgetSettings

    settings = ForgetSettings.make(recipe, forget=forget[0])
    given = options.key_values(rows, "--rows") if rows else None
    table = forget_in_turn(settings, forget, out, rows=given)
    wide = table.pivot_table(index=["set", "metric"], columns="step", values="value", sort=False)
    typer.echo(wide.round(3).to_string())
    typer.echo(f"{out / 'sequence.csv'}: written; each run is in a folder of its own beside it")
