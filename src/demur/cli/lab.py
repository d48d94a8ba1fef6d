"""`demur lab`: the invented worlds and the small models trained on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["app"]

app = typer.Typer(help="List and build the lab models, which make every command run offline.", no_args_is_help=True)

_Name = Annotated[
    str, typer.Argument(metavar="NAME", help="A lab model, for instance almanac, charter or almanac@seed=2.")
]


@app.command("list")
def list_models(as_json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False) -> None:
    """List the lab models: what each is trained on, its size, and whether it is built.

    Example: demur lab list
    """
    from demur.lab import RECIPES, is_built, model_folder

    records = [
        {
            "name": name,
            "trained_on": list(recipe.splits),
            "rows": list(recipe.row_splits),
            "layers": recipe.layers,
            "width": recipe.width,
            "built": is_built(name),
            "path": str(model_folder(name)),
        }
        for name, recipe in RECIPES.items()
    ]
    if as_json:
        typer.echo(json.dumps(records, indent=1))
        return

    from rich.console import Console
    from rich.table import Table

    table = Table("model", "trained on", "layers × width", "built", box=None)
    for record in records:
        table.add_row(
            f"lab:{record['name']}",
            ", ".join(record["trained_on"]),
            f"{record['layers']} × {record['width']}",
            "yes" if record["built"] else "no",
        )
    console = Console(emoji=False)  # rich takes the middle of lab:abacus:train for a picture
    console.print(table)
    worlds: dict[tuple[str, ...], str] = {}
    for name, recipe in RECIPES.items():
        if recipe.row_splits:
            worlds.setdefault(recipe.row_splits, name)
    for splits, name in worlds.items():
        console.print(f"Rows are called lab:{name}:SPLIT, with SPLIT one of {', '.join(splits)}.")


@app.command("build")
def build_model(name: _Name) -> None:
    """Train a lab model, unless it is built, and print its folder.

    Example: demur lab build almanac@seed=2
    """
    from demur.lab import model_path

    typer.echo(model_path(name))


@app.command("path")
def show_path(name: _Name) -> None:
    """Print the folder where a lab model lies, or will lie once it is built.

    Example: cp -r "$(demur lab path almanac)" my-model
    """
    from demur.lab import model_folder

    typer.echo(model_folder(name))


@app.command("new")
def new(
    rows: Annotated[list[str], typer.Argument(metavar="ROWS", help="Data whose words the tokenizer learns.")],
    out: Annotated[Path, typer.Option(help="Folder to write the model to.")],
    vocabulary: Annotated[int, typer.Option(min=300, help="At most this many tokens.")] = 1536,
    width: Annotated[int, typer.Option(min=8, help="Size of a hidden state, a multiple of 8.")] = 128,
    layers: Annotated[int, typer.Option(min=1, help="Number of decoder layers.")] = 2,
    seed: Annotated[int, typer.Option(min=0, help="Decides the weights.")] = 0,
) -> None:
    """Make a small untrained model with a tokenizer for your own text, to train with demur train.

    Example: demur lab new tofu:full --out models/new
    """
    from demur.data import read_rows, row_texts
    from demur.errors import UsageError
    from demur.files import atomic_directory, require_writable
    from demur.lab import new_model

    if out.exists():
        raise UsageError(f"{out} exists: choose another --out")
    if width % 8:
        raise UsageError(f"--width must be a multiple of 8, not {width}")
    require_writable(out)
    texts = [text for source in rows for text in row_texts(read_rows(source))]
    lm = new_model(texts, vocabulary=vocabulary, width=width, layers=layers, seed=seed)
    with atomic_directory(out) as folder:
        lm.save(folder)
    typer.echo(f"{out}: {sum(p.numel() for p in lm.model.parameters()):,} weights, {len(lm.tokenizer)} tokens")
