"""`demur train`: fine-tune a model."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from demur.cli import options

__all__ = ["train"]


@options.with_training
def train(
    out: options.RunOut,
    model: options.Model = None,
    data: Annotated[str | None, typer.Option(help="Rows to learn: file, folder, hub name, tofu:… or lab:…")] = None,
    objective: Annotated[
        str | None, typer.Option(show_default="sft", help="Loss on the rows: sft, or dpo and its like on pairs.")
    ] = None,
    option: options.ObjectiveOption = None,
    **training: Any,
) -> None:
    """Fine-tune a model on rows, for instance the gold reference that never sees the forget set.

    Example: demur train MODEL --data retain.jsonl --epochs 5 --out runs/gold
    """
    given = dict(locals())
    from demur.training import TrainSettings
    from demur.training import train as run_train

    run = run_train(options.settings_from(TrainSettings, given), out)
    typer.echo(f"{run.path}: trained")
