"""One training run in its folder: set up, trained, saved; resumable at any point."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import transformers
from datasets import Dataset
from safetensors.torch import save_file

import demur
from demur.data.batch import collate
from demur.data.rows import rows_hash
from demur.data.writers import write_rows
from demur.errors import DemurError, UsageError
from demur.files import atomic_directory, atomic_write, disk_full
from demur.models.images import freeze_vision
from demur.models.language_model import LanguageModel, load_model, quiet_transformers
from demur.models.scored import joint_score, score
from demur.runs import RunFolder
from demur.training.adapters import INITIAL, add_adapters, check_adapters, fold_adapters, start_adapters
from demur.training.inputs import encode_all
from demur.training.multiplier import Multiplier, require_limit
from demur.training.objective import Objective
from demur.training.plan import Plan
from demur.training.progress import TrainingProgress
from demur.training.references import ReferenceScores, score_reference
from demur.training.settings import ForgetSettings, TrainSettings
from demur.training.trainable import train_only
from demur.training.trainer import EpochCallback, ObjectiveTrainer, last_checkpoint, last_good

__all__ = ["OnEpoch", "Task", "execute", "load", "writes"]

OnEpoch = Callable[[LanguageModel, int], None]


@dataclass(frozen=True)
class Task:
    """What a run does.

    Attributes:
        command: the verb that it repeats.
        settings: all of its settings.
        out: its folder.
        objective: what is minimised.
        rows: the sets it works on, by role.
        make_plan: encodes them, and says which rows meet in which step.
        on_epoch: called with the model and the number of epochs done.
        multiplier: the retain loss's weight, where a constraint moves it.
        made: sets made up while planning, by the file name to keep them under.
    """

    command: str
    settings: ForgetSettings | TrainSettings
    out: Path
    objective: Objective
    rows: Mapping[str, Dataset]
    make_plan: Callable[[LanguageModel], Plan]
    on_epoch: OnEpoch | None = None
    multiplier: Multiplier | None = None
    made: Mapping[str, Dataset] = field(default_factory=dict)


def execute(task: Task) -> RunFolder:
    """Do a task, or what is left of it.

    Raises:
        UsageError: settings, data or model are not fit for use; nothing has been written then.
        DemurError: training failed; the run folder keeps its last good checkpoint.
    """
    settings = task.settings
    check_adapters(settings)
    config = {"command": task.command, **settings.model_dump()}
    defaults = {name: field.default for name, field in type(settings).model_fields.items() if not field.is_required()}
    run = RunFolder.check(task.out, config, defaults) if writes() else RunFolder(task.out)
    if run.state.get("status") == "complete" and run.model_path.is_dir():
        return run
    transformers.set_seed(settings.seed)
    lm = load(settings)
    freeze_vision(lm.model)
    plan = task.make_plan(lm)
    _try_options(lm, task.objective, plan)
    if task.objective.main.facts["limit"] and task.multiplier is None:
        require_limit(lm, task.objective, plan)
    before = lm.weights_hash()
    started = time.monotonic()
    references = _references(lm, task.objective, plan, settings, before)
    initial = None
    if settings.lora:
        add_adapters(lm, settings)
        initial = start_adapters(lm, settings, run.path / INITIAL, lambda: encode_all(lm, task.rows, settings))
    if settings.trainable is not None:
        train_only(lm.model, settings.trainable)
    hashes = {"data": {role: rows_hash(r) for role, r in task.rows.items()}, "weights": {"before": before}}
    if writes():
        run = RunFolder.create(task.out, config, defaults)
        versions = {name: version(name) for name in ("torch", "transformers", "peft", "datasets")}
        run.update_state(status="running", demur=demur.__version__, versions=versions, hashes=hashes)
        for name, table in task.made.items():
            write_rows(run.path / name, table)
        if initial is not None:
            with atomic_write(run.path / INITIAL) as temporary:
                save_file(initial, temporary)
    try:
        _fit(lm, task, plan, references, run)
        if not writes():
            return run
        if initial is not None:
            fold_adapters(lm, initial, load(settings).model)
        with atomic_directory(run.model_path) as folder:
            lm.save(folder)
    except BaseException as error:
        status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        _note_failure(run, status, started, error)
        if disk_full(error):
            raise DemurError(
                f"the disk is full: free some space and run the same command again ({run.path})"
            ) from error
        raise
    hashes["weights"]["after"] = lm.weights_hash()
    seconds = _count_time(run, started)
    run.log("trained", seconds=seconds)
    run.update_state(status="complete", hashes=hashes, template=lm.template)
    shutil.rmtree(run.path / "checkpoints", ignore_errors=True)
    (run.path / INITIAL).unlink(missing_ok=True)
    return run


@torch.no_grad()
def _try_options(lm: LanguageModel, objective: Objective, plan: Plan) -> None:
    """Refuse options that are out of range: try them on one item, with the model as its own reference."""
    if not (objective.options or objective.layers):
        return
    batches = {role: collate([plan.tables[role][plan.order[role][0, 0]]], lm.pad_id) for role in objective.roles}
    try:
        reference = joint_score(lm.model, batches, {}, lm.pad_id, layers=objective.layers)
        objective(joint_score(lm.model, batches, reference, lm.pad_id, layers=objective.layers))
    except UsageError as error:
        if not objective.layers:
            raise
        raise UsageError(f"objective {objective.main.name!r}: {error}; pass --option layer=NUMBER") from error
    except ValueError as error:
        raise UsageError(f"objective {objective.main.name!r}: {error}") from error


def load(settings: ForgetSettings | TrainSettings) -> LanguageModel:
    """The model that a run changes, as it is before.

    Raises:
        UsageError: it cannot be loaded.
    """
    return load_model(
        settings.model,
        template=settings.template,
        device=settings.device,
        dtype=settings.dtype,
        trust_remote_code=settings.trust_remote_code,
    )


def _references(
    lm: LanguageModel, objective: Objective, plan: Plan, settings: ForgetSettings | TrainSettings, weights: str
) -> dict[str, ReferenceScores] | None:
    if settings.reference == "adapter":
        return None
    return {
        role: score_reference(
            lm,
            plan.tables[role],
            plan.used(role),
            hidden=role in objective.distribution_roles,
            layers=objective.layers,
            bf16=settings.bf16,
            batch_size=2 * settings.batch_size,
            weights_hash=weights,
        )
        for role in objective.reference_roles
    }


def _fit(
    lm: LanguageModel, task: Task, plan: Plan, references: dict[str, ReferenceScores] | None, run: RunFolder
) -> None:
    settings, on_epoch = task.settings, task.on_epoch
    checkpoints = run.path / "checkpoints"
    steps = -(-plan.items // (settings.batch_size * settings.accumulate)) * settings.epochs
    arguments = transformers.TrainingArguments(
        output_dir=str(checkpoints),
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.accumulate,
        learning_rate=settings.learning_rate,
        num_train_epochs=settings.epochs,
        warmup_steps=round(settings.warmup * steps),
        lr_scheduler_type=settings.schedule,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        bf16=settings.bf16,
        seed=settings.seed,
        save_strategy="steps" if settings.save_steps else "epoch",
        save_steps=settings.save_steps or 500,
        save_total_limit=2,
        logging_steps=max(1, steps // 100),
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        ddp_find_unused_parameters=not task.objective.logits,  # nothing above the layer gets a gradient
        use_cpu=lm.device.type == "cpu",
    )
    # Several visible GPUs without a launcher would make the trainer replicate the model and split batches of dicts.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    bar = TrainingProgress(f"{settings.objective} on {lm.name}")
    callbacks: list[transformers.TrainerCallback] = [bar, _LogToRun(run)]
    if on_epoch is not None and writes():
        callbacks.append(EpochCallback(lambda epoch: on_epoch(lm, epoch)))
    trainer = ObjectiveTrainer(lm, task.objective, plan, references, arguments, callbacks, task.multiplier)
    trainer.remove_callback(transformers.PrinterCallback)
    resumed = last_checkpoint(checkpoints)
    if resumed is not None and writes():
        run.log("resumed", checkpoint=resumed.name)
    try:
        with quiet_transformers():
            trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    finally:
        bar.stop()
    trainer.accelerator.wait_for_everyone()
    lm.model.eval()
    if not _sound(lm, plan):
        kept = last_good(checkpoints, trainer.state.global_step)
        raise DemurError(f"the last step broke the model: its scores are no numbers any more; {kept}")


@torch.no_grad()
def _sound(lm: LanguageModel, plan: Plan) -> bool:
    """Whether weights and scores are finite numbers: what the last step did enters no loss."""
    batches = [collate([table[0]], lm.pad_id) for table in plan.tables.values()]
    scores = (score(lm.model, batch).logps for batch in batches)
    return all(bool(values.isfinite().all()) for values in (*lm.model.parameters(), *scores))


class _LogToRun(transformers.TrainerCallback):
    def __init__(self, run: RunFolder) -> None:
        self.run = run

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if logs and state.is_world_process_zero:
            self.run.log("step", step=state.global_step, **logs)


def _count_time(run: RunFolder, started: float) -> float:
    """Add this process's seconds to those of earlier ones."""
    seconds = round(run.state.get("seconds", 0.0) + time.monotonic() - started, 2)
    run.update_state(seconds=seconds)
    return seconds


def writes() -> bool:
    """Whether this process writes the run folder: of several that train together, the first."""
    return os.environ.get("RANK", "0") == "0"


def _note_failure(run: RunFolder, status: str, started: float, error: BaseException) -> None:
    """Say in the folder how the run ended; a full disk may refuse even that."""
    if not writes():
        return
    try:
        last_checkpoint(run.path / "checkpoints")  # removes a half-written one
        _count_time(run, started)
        run.update_state(status=status)
        run.log(status, reason=str(error) or type(error).__name__)
    except OSError:
        return
