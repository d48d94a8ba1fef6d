"""`demur data`: look at a data set before anything is trained on it."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["app"]

app = typer.Typer(help="Look at data sets.", no_args_is_help=True)


@app.callback()
def _data() -> None:
    """Look at data sets before anything is trained on them."""


@app.command("check")
def check(
    source: Annotated[
        str, typer.Argument(metavar="ROWS", help="File, folder, tofu:NAME or hub name; a slice like [0:40] may follow.")
    ],
    require: Annotated[list[str] | None, typer.Option(help="Column that every row must have; may be repeated.")] = None,
    split: Annotated[str | None, typer.Option(help="Split of a folder, a hub data set, or the column 'split'.")] = None,
) -> None:
    """Read a data set, check its rows, and print what was read; a bad row is named by file, line and column.

    Example: demur data check forget.jsonl --require question --require answer
    """
    import json

    from demur.data import read_rows, rows_hash

    dataset = read_rows(source, required=require or (), split=split)
    typer.echo(f"{source}: {len(dataset)} rows, sha256 {rows_hash(dataset)}")
    for column in dataset.column_names:
        filled = sum(value is not None for value in dataset[column][:])
        typer.echo(f"  {column}: {filled} of {len(dataset)} rows have a value")
    typer.echo("first row:")
    typer.echo(json.dumps(dataset[0], ensure_ascii=False, indent=2, default=str))
