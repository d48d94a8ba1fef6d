"""demur forget"""

from __future__ import annotations

from pathlib import Path

import typer


def forget(
    model: str | None = typer.Argument(None, help="Folder, hub name or lab model to change."),
    out: Path = typer.Option(..., help="Run folder to write."),
    forget: str | None = typer.Option(None, help="Rows to forget: file, folder, hub name, tofu:… or lab:…"),
    retain: str | None = typer.Option(None, help="Rows to keep."),
    holdout: str | None = typer.Option(None, help="Rows never trained on, for membership inference in audits."),
    objective: str | None = typer.Option(None, help="Loss on the forget rows (see: demur objectives). [npo]"),
    option: list[str] = typer.Option([], help="An option of the objective, as NAME=VALUE; may be repeated."),
    retain_objective: str | None = typer.Option(None, help="Loss on the retain rows: nll, kl or none."),
    forget_weight: float | None = typer.Option(None, help="Weight of the forget loss."),
    retain_weight: float | None = typer.Option(None, help="Weight of the retain loss."),
    alternates: str | None = typer.Option(None, help="Text file of answers to give instead, one a line."),
    anchor: str | None = typer.Option(None, help="Set that an epoch goes through once: forget or retain."),
    allow_overlap: bool = typer.Option(False, "--allow-overlap", help="Accept forget rows that are in retain too."),
    lora: int | None = typer.Option(None, metavar="RANK", help="Train low-rank adapters instead of all weights."),
    lora_targets: str | None = typer.Option(None, help="Modules to adapt, comma-separated. [all-linear]"),
    reference: str | None = typer.Option(None, help="Reference scores: cached, or adapter (off)."),
    learning_rate: float | None = typer.Option(None, help="Peak learning rate. [1e-5]"),
    epochs: int | None = typer.Option(None, help="Passes over the anchor set. [5]"),
    batch_size: int | None = typer.Option(None, help="Rows in one forward pass. [8]"),
    accumulate: int | None = typer.Option(None, help="Forward passes in one optimizer step. [1]"),
    warmup: float | None = typer.Option(None, help="Share of steps over which the rate rises."),
    schedule: str | None = typer.Option(None, help="constant, linear or cosine. [linear]"),
    weight_decay: float | None = typer.Option(None, help="AdamW's weight decay. [0.01]"),
    bf16: bool = typer.Option(False, "--bf16", help="Compute in bfloat16."),
    device: str | None = typer.Option(None, help="auto, cpu or cuda."),
    seed: int | None = typer.Option(None, help="Decides order, partners and initial adapters."),
    save_steps: int | None = typer.Option(None, help="Steps between checkpoints. [one epoch]"),
    template: str | None = typer.Option(None, help="How prompts are shown: chat or plain."),
    trajectory: bool = typer.Option(True, help="Measure forget and retain probability after every epoch."),
    recipe: Path | None = typer.Option(None, help="YAML file of settings, for instance a run's config.yaml."),
    trust_remote_code: bool = typer.Option(False, "--trust-remote-code", help="Run code that comes with the model."),
) -> None:
    """Make a model forget some rows and keep others.

    [dim]Example: demur forget lab:almanac --forget lab:almanac:forget --retain lab:almanac:retain --objective npo --out runs/npo[/dim]
    """
    given = dict(locals())
    from demur.cli.options import key_values
    from demur.training import ForgetSettings
    from demur.training import forget as run_forget

    for name in ("out", "recipe", "trajectory", "option"):
        given.pop(name)
    given.update({flag: given[flag] or None for flag in ("allow_overlap", "bf16", "trust_remote_code")})
    settings = ForgetSettings.make(recipe, objective_options=key_values(option) or None, **given)
    on_epoch = None
    if trajectory:
        from demur.audits import Trajectory

        on_epoch = Trajectory(settings, out)
    run = run_forget(settings, out, on_epoch)
    print(f"{run.path}: trained; measure it with: demur audit {run.path} --suite tofu")
