"""`demur refuse`: teach a model when to say no."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from demur.cli import options

__all__ = ["refuse"]


@options.with_training
def refuse(
    out: options.RunOut,
    model: options.Model = None,
    data: Annotated[
        str | None, typer.Option(help="Plain rows that the method makes its own rows of: file, folder or lab:…")
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(show_default="sft", help="How it is taught; see: demur data build --list."),
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="An option of the method; may be repeated.")
    ] = None,
    **training: Any,
) -> None:
    """Teach a model when to say no, when to say "I do not know", and when not to refuse.

    Example: demur refuse lab:charter --data lab:charter:train --method derta --learning-rate 2e-3 --epochs 10
    --out runs/derta
    """
    given = dict(locals())
    from demur.training import RefuseSettings
    from demur.training.refusal import refusal_methods
    from demur.training.refusal import refuse as run_refuse

    settings = options.settings_from(RefuseSettings, given)
    run = run_refuse(settings, out)
    for note in run.state.get("notes", ()):
        typer.echo(f"note: {note}")
    known = settings.method in refusal_methods.names()
    suite = refusal_methods.get(settings.method).facts["suite"] if known else "refusal"
    typer.echo(f"{run.path}: trained; measure it with: demur audit {run.path} --suite {suite}")
