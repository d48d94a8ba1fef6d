"""`demur forget`: make a language model or a classifier forget."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from demur.cli import options
from demur.errors import UsageError

if TYPE_CHECKING:
    from demur.runs import RunFolder

__all__ = ["TEXT", "forget"]

_CLASSIFIERS = ("data", "test", "target", "method")
TEXT = (
    "retain",
    "holdout",
    "objective",
    "retain_objective",
    "forget_weight",
    "retain_weight",
    "decoupled",
    "decouple_weight",
    "retain_limit",
    "dual_rate",
    "dual_update",
    "dual_warmup",
    "alternates",
    "anchor",
    "allow_overlap",
    "trajectory",
)
_TITLES = {
    "accuracy_forget": "rows to forget",
    "accuracy_retain": "rows to keep",
    "accuracy_test": "test rows",
    "accuracy_test_of_forgotten": "test rows of the forgotten classes",
}


def _list_methods(wanted: bool) -> None:
    if not wanted:
        return
    from demur.editing import editors

    for name in editors.names():
        component = editors.get(name)
        paper = "" if component.facts["paper"] == "none" else f" (arXiv {component.facts['paper']})"
        shown = ", ".join(f"{key}={value}" for key, value in component.options.items() if key != "seed") or "none"
        typer.echo(f"{name}{paper}: {component.summary}")
        typer.echo(f"    for {', '.join(component.facts['kinds'])} models; options: {shown}")
    typer.echo("What makes a language model forget is a loss: demur objectives")
    raise typer.Exit


@options.in_panels(
    {
        "Classifiers": (*_CLASSIFIERS, "list_"),
        "Language models": TEXT,
        "Training of language models": options.TRAINING,
    }
)
@options.with_training
def forget(
    out: options.RunOut,
    model: options.Model = None,
    forget: Annotated[
        str | None,
        typer.Option(
            help="Rows to forget: file, folder, hub name, tofu:… or lab:…; of a classifier's data class:NAME, "
            "group:NUMBER, random:0.1 or rows:FILE."
        ),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="An option of the objective or of the method; may be repeated."),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            show_default="text",
            help="What the model works on: text, image-classification or tabular.",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="What it was trained on: digits:train, a folder of pictures, .npz, .csv or .parquet, hub name.",
        ),
    ] = None,
    test: Annotated[str | None, typer.Option(help="Rows that it was not trained on.")] = None,
    target: Annotated[str | None, typer.Option(help="Column of a table that holds the class.")] = None,
    method: Annotated[
        str | None,
        typer.Option(help="How it is made to forget; retrain makes the reference."),
    ] = None,
    list_: Annotated[
        bool,
        typer.Option(
            "--list",
            help="List the methods with their options, and stop.",
            is_eager=True,
            callback=_list_methods,
        ),
    ] = False,
    retain: Annotated[str | None, typer.Option(help="Rows to keep.")] = None,
    holdout: Annotated[
        str | None, typer.Option(help="Rows never trained on, for membership inference in audits.")
    ] = None,
    objective: Annotated[
        str | None, typer.Option(show_default="npo", help="Loss on the forget rows; see: demur objectives.")
    ] = None,
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

    Example: demur forget lab:digits-resnet --task image-classification --data digits:train --test digits:test
    --forget class:3 --method ssd --option alpha_relative=0.4 --out runs/ssd
    """
    given = dict(locals())
    task = task or _recipe_task(training["recipe"])
    if task in ("image-classification", "tabular"):
        _forget_in_classifier(given, task)
        return
    if task != "text":
        raise UsageError(f"unknown --task {task!r}: use text, image-classification or tabular")
    for name in _CLASSIFIERS:
        if given[name] is not None:
            raise UsageError(f"--{name} is for classifiers: pass --task image-classification or tabular with it")
    if forget is not None and forget.partition(":")[0] in ("class", "group", "random", "rows"):
        raise UsageError(f"--forget {forget} is for classifiers: pass --task image-classification or tabular with it")
    from demur.training import ForgetSettings
    from demur.training import forget as run_forget

    settings = options.settings_from(ForgetSettings, given)
    on_epoch = None
    if trajectory:
        from demur.audits import Trajectory

        on_epoch = Trajectory(settings, out)
    run = run_forget(settings, out, on_epoch)
    typer.echo(f"{run.path}: trained; measure it with: demur audit {run.path} --suite tofu")


def _recipe_task(recipe: Path | None) -> str:
    from demur.files import read_settings

    return "text" if recipe is None else str(read_settings(recipe).get("task") or "text")


def _forget_in_classifier(given: Mapping[str, Any], task: str) -> None:
    from demur.editing import EditSettings, edit_run
    from demur.training import progress_bar

    every = {**given, **given["training"]}
    for name in (*TEXT, *options.TRAINING):
        if every[name] not in (None, []) and (name != "trajectory" or not every[name]):
            hint = "a method's own options are --option NAME=VALUE" if name in options.TRAINING else "say --method NAME"
            flag = "no-trajectory" if name == "trajectory" else name.replace("_", "-")
            raise UsageError(f"--{flag} is for --task text, not {task}: {hint}")
    settings = EditSettings.make(
        every["recipe"],
        options=options.key_values(given["option"] or ()) or None,
        **{**{name: every[name] for name in EditSettings.model_fields if name in every}, "task": task},
    )
    with progress_bar() as bar:
        shown = bar.add_task("", total=None, note=settings.model)
        run = edit_run(
            settings,
            given["out"],
            lambda done, total, note="": bar.update(shown, completed=done, total=total or None, description=note),
        )
    _show(run, settings.method)


def _show(run: RunFolder, method: str) -> None:
    from rich.console import Console
    from rich.table import Table

    results = run.results()
    table = Table("accuracy on", "n", "before", "after", "95 % interval", box=None)
    for metric, rows in results[results["suite"] == "forget"].groupby("metric", sort=False):
        before, after = (rows[rows["role"] == role].iloc[0] for role in ("before", "run"))
        span = f"{after['low']:.3f} to {after['high']:.3f}"
        table.add_row(_TITLES[metric], f"{after['n']}", f"{before['value']:.3f}", f"{after['value']:.3f}", span)
    Console(emoji=False).print(table)
    audit = f"demur audit {run.path if method != 'retrain' else 'RUN'} --suite classifier-unlearning --reference"
    if method == "retrain":
        typer.echo(f"{run.path}: retrained; measure others beside it with: {audit} {run.path}")
    else:
        typer.echo(f"{run.path}: edited; make a reference with --method retrain --out GOLD, then: {audit} GOLD")
