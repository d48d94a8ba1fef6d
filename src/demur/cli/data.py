"""`demur data`: look at data sets before anything is trained on them, and make what a method needs besides."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from demur.cli import options

__all__ = ["app"]

app = typer.Typer(help="Look at data sets, and make what a method needs besides.", no_args_is_help=True)


@app.callback()
def _data() -> None:
    """Look at data sets before anything is trained on them, and make what a method needs besides."""


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


@app.command("alternates")
def alternates(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Model that makes them up: the one that is to forget.")],
    forget: Annotated[str, typer.Option(metavar="ROWS", help="Questions and answers.")],
    out: Annotated[Path, typer.Option(help="File to write: the rows with a column 'alternates'.")],
    n: Annotated[int, typer.Option(help="Answers to make for each row.")] = 5,
    seed: options.Seed = None,
    instruction: Annotated[
        str | None,
        typer.Option(
            show_default="ask for a plausible other answer",
            help="What the model is asked, with {question} and {answer} where the row's belong.",
        ),
    ] = None,
    temperature: Annotated[float, typer.Option(help="Of the sampling, above 0.")] = 1.0,
    max_new_tokens: Annotated[int, typer.Option(help="An answer's length at most.")] = 200,
    batch_size: Annotated[int, typer.Option(help="Prompts in one batch.")] = 32,
    template: options.Template = None,
    dtype: options.Dtype = None,
    device: options.Device = None,
    trust_remote_code: options.TrustRemoteCode = None,
) -> None:
    """Have a model make up other answers to the questions whose answers it is to forget, for the objective altpo.

    Example: demur data alternates MODEL --forget forget.jsonl --out alternates.jsonl
    """
    from demur.data import read_rows, write_rows
    from demur.errors import UsageError
    from demur.files import require_writable
    from demur.models import LocalEngine, alternate_answers, load_model
    from demur.models.alternates import INSTRUCTION
    from demur.training import progress_bar

    if out.exists():
        raise UsageError(f"{out} exists: choose another --out or remove it")
    require_writable(out)
    rows = read_rows(forget)
    lm = load_model(
        model,
        template=template or "auto",
        dtype=dtype or "auto",
        device=device or "auto",
        trust_remote_code=bool(trust_remote_code),
    )
    with progress_bar() as bar:
        task = bar.add_task("other answers", total=n * len(rows), note="")
        made = alternate_answers(
            LocalEngine(lm, batch_size),
            rows,
            n,
            instruction=instruction or INSTRUCTION,
            temperature=temperature,
            max_new_tokens=max_new_tokens,
            seed=seed or 0,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    write_rows(out, made)
    typer.echo(f"{out}: {len(made)} rows with {n} other answers each")


@app.command("muse-layout")
def muse_layout(
    forget: Annotated[str, typer.Argument(metavar="FORGET", help="Texts to forget: rows with a column text.")],
    retain: Annotated[str, typer.Option(help="Texts to keep.")],
    holdout: Annotated[str, typer.Option(help="Texts like the others that no model is ever trained on.")],
    out: Annotated[Path, typer.Option(help="Folder to write; it is replaced as a whole.")],
    forget_qa: Annotated[str | None, typer.Option(help="Questions with answers about the texts to forget.")] = None,
    retain_qa: Annotated[str | None, typer.Option(help="Questions with answers about the texts to keep.")] = None,
    shots: Annotated[int, typer.Option(min=1, help="Questions of each set that become in-context examples.")] = 5,
    share: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of a text's words to prompt with.")] = 0.5,
) -> None:
    """Put texts of your own into the layout of the MUSE benchmark, so that `muse:FOLDER:…` reads them.

    Example: demur data muse-layout lab:almanac:forget-documents --retain lab:almanac:retain-documents
    --holdout lab:almanac:holdout-documents --forget-qa lab:almanac:forget --retain-qa lab:almanac:retain --out corpus
    """
    from demur.data import read_rows, write_muse

    texts = [read_rows(source, required=("text",)) for source in (forget, retain, holdout)]
    questions = {
        name: None if source is None else read_rows(source, required=("question", "answer"))
        for name, source in (("forget_qa", forget_qa), ("retain_qa", retain_qa))
    }
    folder = write_muse(out, *texts, **questions, shots=shots, share=share)
    typer.echo(f"{folder}: written; read it as muse:{folder}:raw:forget and so on")
