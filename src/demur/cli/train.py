"""demur train"""

from __future__ import annotations

from pathlib import Path

import typer


def train(
    model: str | None = typer.Argument(None, help="Folder, hub name or lab model to change."),
    out: Path = typer.Option(..., help="Run folder to write."),
    data: str | None = typer.Option(None, help="Rows to learn: file, folder, hub name, tofu:… or lab:…"),
    objective: str | None = typer.Option(None, help="Loss on the rows: sft, dpo. [sft]"),
    option: list[str] = typer.Option([], help="An option of the objective, as NAME=VALUE; may be repeated."),
    lora: int | None = typer.Option(None, metavar="RANK", help="Train low-rank adapters instead of all weights."),
    learning_rate: float | None = typer.Option(None, help="Peak learning rate. [1e-5]"),
    epochs: int | None = typer.Option(None, help="Passes over the rows. [5]"),
    batch_size: int | None = typer.Option(None, help="Rows in one forward pass. [8]"),
    accumulate: int | None = typer.Option(None, help="Forward passes in one optimizer step. [1]"),
    warmup: float | None = typer.Option(None, help="Share of steps over which the rate rises."),
    schedule: str | None = typer.Option(None, help="constant, linear or cosine. [linear]"),
    bf16: bool = typer.Option(False, "--bf16", help="Compute in bfloat16."),
    device: str | None = typer.Option(None, help="auto, cpu or cuda."),
    seed: int | None = typer.Option(None, help="Decides the order of rows."),
    save_steps: int | None = typer.Option(None, help="Steps between checkpoints. [one epoch]"),
    template: str | None = typer.Option(None, help="How prompts are shown: chat or plain."),
    recipe: Path | None = typer.Option(None, help="YAML file of settings, for instance a run's config.yaml."),
    trust_remote_code: bool = typer.Option(False, "--trust-remote-code", help="Run code that comes with the model."),
) -> None:
    """Fine-tune a model on rows, for instance the gold reference that never sees the forget set.

    [dim]Example: demur train MODEL --data retain.jsonl --epochs 5 --out runs/gold[/dim]
    """
    given = dict(locals())
    from demur.cli.options import key_values
    from demur.training import TrainSettings
    from demur.training import train as run_train

    for name in ("out", "recipe", "option"):
        given.pop(name)
    given.update({flag: given[flag] or None for flag in ("bf16", "trust_remote_code")})
    run = run_train(TrainSettings.make(recipe, objective_options=key_values(option) or None, **given), out)
    print(f"{run.path}: trained")
