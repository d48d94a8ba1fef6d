"""`demur train`: fine-tune a model."""

from __future__ import annotations

from typing import Annotated

import typer

from demur.cli import options

__all__ = ["train"]


def train(
    out: options.RunOut,
    model: options.Model = None,
    data: Annotated[str | None, typer.Option(help="Rows to learn: file, folder, hub name, tofu:… or lab:…")] = None,
    objective: Annotated[str | None, typer.Option(show_default="sft", help="Loss on the rows: sft or dpo.")] = None,
    option: options.ObjectiveOption = None,
    lora: options.Lora = None,
    lora_targets: options.LoraTargets = None,
    lora_init: options.LoraInit = None,
    trainable: options.Trainable = None,
    learning_rate: options.LearningRate = None,
    epochs: options.Epochs = None,
    batch_size: options.BatchSize = None,
    accumulate: options.Accumulate = None,
    warmup: options.Warmup = None,
    schedule: options.Schedule = None,
    weight_decay: options.WeightDecay = None,
    bf16: options.Bf16 = None,
    dtype: options.Dtype = None,
    device: options.Device = None,
    seed: options.Seed = None,
    save_steps: options.SaveSteps = None,
    template: options.Template = None,
    chunk_length: options.ChunkLength = None,
    recipe: options.Recipe = None,
    trust_remote_code: options.TrustRemoteCode = None,
) -> None:
    """Fine-tune a model on rows, for instance the gold reference that never sees the forget set.

    Example: demur train MODEL --data retain.jsonl --epochs 5 --out runs/gold
    """
    given = dict(locals())
    from demur.training import TrainSettings
    from demur.training import train as run_train

    run = run_train(options.settings_from(TrainSettings, given), out)
    typer.echo(f"{run.path}: trained")
