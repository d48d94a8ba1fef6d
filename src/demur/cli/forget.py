"""`demur forget`: make a model forget."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from demur.cli import options

__all__ = ["forget"]


@options.with_training
def forget(
    out: options.RunOut,
    model: options.Model = None,
    forget: Annotated[str | None, typer.Option(help="Rows to forget: file, folder, hub name, tofu:… or lab:…")] = None,
    retain: Annotated[str | None, typer.Option(help="Rows to keep.")] = None,
    holdout: Annotated[
        str | None, typer.Option(help="Rows never trained on, for membership inference in audits.")
    ] = None,
    objective: Annotated[
        str | None, typer.Option(show_default="npo", help="Loss on the forget rows; see: demur objectives.")
    ] = None,
    option: options.ObjectiveOption = None,
    retain_objective: Annotated[
        str | None, typer.Option(show_default="the objective's", help="Loss on the retain rows: nll, kl or none.")
    ] = None,
    forget_weight: Annotated[
        float | None, typer.Option(show_default="the objective's", help="Weight of the forget loss.")
    ] = None,
    retain_weight: Annotated[
        float | None, typer.Option(show_default="the objective's", help="Weight of the retain loss.")
    ] = None,
    decoupled: Annotated[
        str | None,
        typer.Option(help="Forget questions with another picture and a normal answer: a row with its id for each."),
    ] = None,
    decouple_weight: Annotated[
        float | None, typer.Option(show_default="the paper's 1", help="Weight of the loss on the decoupled rows.")
    ] = None,
    retain_limit: Annotated[
        float | None,
        typer.Option(
            show_default="the weight stays as it is",
            help="Keep the retain loss below this by moving its weight (pdu needs it).",
        ),
    ] = None,
    dual_rate: Annotated[
        float | None, typer.Option(show_default="1", help="How far that weight moves per nat above the limit.")
    ] = None,
    dual_update: Annotated[
        str | None, typer.Option(show_default="step", help="When it moves: every step, or epoch.")
    ] = None,
    dual_warmup: Annotated[int | None, typer.Option(show_default="5", help="Epochs before it first moves.")] = None,
    alternates: Annotated[str | None, typer.Option(help="Text file of answers to give instead, one a line.")] = None,
    anchor: Annotated[
        str | None, typer.Option(show_default="forget", help="Set that an epoch goes through once: forget or retain.")
    ] = None,
    allow_overlap: Annotated[
        bool | None,
        typer.Option(show_default=False, help="Accept forget rows that are in retain too."),
    ] = None,
    trajectory: Annotated[bool, typer.Option(help="Measure forget and retain probability after every epoch.")] = True,
    **training: Any,
) -> None:
    """Make a model forget some rows and keep others.

    Example: demur forget lab:almanac --forget lab:almanac:forget --retain lab:almanac:retain
    --learning-rate 5e-4 --out runs/npo
    """
    given = dict(locals())
    from demur.training import ForgetSettings
    from demur.training import forget as run_forget

    settings = options.settings_from(ForgetSettings, given)
    on_epoch = None
    if trajectory:
        from demur.audits import Trajectory

        on_epoch = Trajectory(settings, out)
    run = run_forget(settings, out, on_epoch)
    typer.echo(f"{run.path}: trained; measure it with: demur audit {run.path} --suite tofu")
