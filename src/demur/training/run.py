"""Training runs: from settings to a run folder, resumable at any point."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import transformers
from datasets import Dataset
from safetensors.torch import save_file

import demur
from demur.data.abstentions import ABSTENTIONS
from demur.data.batch import Encoded, collate
from demur.data.readers import read_lines, read_rows
from demur.data.rows import is_text, question_answer, rows_hash
from demur.data.splits import require_disjoint
from demur.data.writers import write_rows
from demur.errors import DemurError, UsageError
from demur.files import atomic_directory, atomic_write, disk_full
from demur.models.chat import encode
from demur.models.completion import encode_rows
from demur.models.images import freeze_vision
from demur.models.language_model import LanguageModel, load_model, quiet_transformers
from demur.models.scored import joint_score, score
from demur.runs import RunFolder
from demur.training.adapters import INITIAL, add_adapters, check_adapters, fold_adapters, start_adapters
from demur.training.alternates import ALTERNATES, Maker, cycled_alternates, drawn_alternates, own_alternates
from demur.training.decoupling import decouple_weight, pair_decoupled
from demur.training.multiplier import Multiplier, make_multiplier, require_limit
from demur.training.objective import Objective
from demur.training.plan import Plan, paired_plan
from demur.training.progress import TrainingProgress
from demur.training.references import ReferenceScores, score_reference
from demur.training.settings import ForgetSettings, TrainSettings
from demur.training.trainable import train_only
from demur.training.trainer import EpochCallback, ObjectiveTrainer, last_checkpoint, last_good

__all__ = ["forget", "train"]

OnEpoch = Callable[[LanguageModel, int], None]


def forget(settings: ForgetSettings, out: str | Path, on_epoch: OnEpoch | None = None) -> RunFolder:
    """Make a model forget some rows and keep others; everything lands in a run folder.

    A folder that the same settings made before is taken up where it stopped: a finished run is returned as it is, a
    killed one resumes from its last checkpoint and ends with the same weights as one that was never stopped.

    Args:
        settings: what to forget, from what, and how.
        out: the run folder.
        on_epoch: called with the model and the number of epochs done, before the first (0) and after each; must
            leave the model as it is.

    Returns:
        The run folder; its `model/` loads with transformers or peft.

    Raises:
        UsageError: the settings, the data or the model are not fit for use; nothing has been written then.
        DemurError: training failed; the run folder keeps its last good checkpoint.
    """
    objective = Objective.make(
        settings.objective,
        settings.objective_options,
        settings.retain_objective,
        settings.forget_weight,
        settings.retain_weight,
        decouple_weight(settings.decoupled, settings.decouple_weight),
    )
    if objective.main.facts["forget_only"] and settings.reference != "cached":
        raise UsageError(
            f"objective {settings.objective!r} is for where no reference model may be used: leave --reference out"
        )
    rows = {"forget": _read(settings.forget)}
    if settings.holdout is not None:
        _read(settings.holdout)
    if settings.retain is not None:
        rows["retain"] = _read(settings.retain)
        require_disjoint(rows["forget"], rows["retain"], allow_overlap=settings.allow_overlap)
    if settings.decoupled is not None:
        rows["decoupled"] = pair_decoupled(rows["forget"], _read(settings.decoupled), settings.decoupled)
    for role in objective.roles:
        if role not in rows and role != "alternate":
            raise UsageError(
                f"objective {settings.objective!r} needs {role} rows: pass --{role}"
                if role == "retain"
                else f"objective {settings.objective!r} works on {role} rows, not on a forget set: choose another"
            )

    if settings.alternates is not None and "alternate" not in objective.roles:
        raise UsageError(f"objective {settings.objective!r} gives no other answers: leave --alternates out")
    if settings.alternates is not None and objective.main.facts["generated"]:
        raise UsageError(
            f"objective {settings.objective!r} teaches each row's own answers: leave --alternates out and give the "
            "forget rows a column 'alternates' (demur data alternates), or have the model make them up"
        )
    out = Path(out)
    made: dict[str, Dataset] = {}
    multiplier = make_multiplier(settings, objective)

    def plan(lm: LanguageModel) -> Plan:
        # Retain rows that no loss uses are still measured, so they too must fit.
        encoded = _encode_all(lm, rows, settings)
        tables = {role: encoded[role] for role in objective.roles if role not in ("alternate", "decoupled")}
        if "alternate" in objective.roles:
            tables.setdefault("forget", encoded["forget"])  # the rows that are answered otherwise
        others = {role: t for role, t in tables.items() if role != settings.anchor}
        if settings.anchor not in tables:
            raise UsageError(f"--anchor {settings.anchor} needs an objective that uses {settings.anchor} rows")
        maker: Maker | None = None
        if objective.main.facts["generated"]:
            own, new = own_alternates(lm, rows["forget"], settings.forget, out / ALTERNATES, settings.seed)
            if new:
                made[ALTERNATES] = own
            maker = cycled_alternates(lm, own, own["alternates"][:], settings.seed)
        elif "alternate" in objective.roles:
            answers = ABSTENTIONS if settings.alternates is None else read_lines(settings.alternates)
            maker = drawn_alternates(lm, rows["forget"], answers, settings.seed)
        anchored = {settings.anchor: tables[settings.anchor]}
        paired = {"decoupled": encoded["decoupled"]} if "decoupled" in objective.roles else {}
        if paired and "forget" not in tables:
            raise UsageError(f"objective {settings.objective!r} has no forget rows for decoupled rows to go with")
        return paired_plan(
            anchored, others, epochs=settings.epochs, seed=settings.seed, paired=paired, alternates=maker
        )

    return _run("forget", settings, out, objective, rows, plan, on_epoch, multiplier, made)


def train(settings: TrainSettings, out: str | Path, on_epoch: OnEpoch | None = None) -> RunFolder:
    """Fine-tune a model on rows, for instance to make the gold reference that never saw the forget set.

    Args:
        settings: the model, the rows and the objective.
        out: the run folder.
        on_epoch: as for `forget`.

    Returns:
        The run folder.

    Raises:
        UsageError, DemurError: as for `forget`.
    """
    objective = Objective.make(settings.objective, settings.objective_options)
    data = read_rows(settings.data)
    if objective.roles not in (("examples",), ("chosen", "rejected")):
        raise UsageError(f"objective {settings.objective!r} trains on {', '.join(objective.roles)} rows: use forget")

    def plan(lm: LanguageModel) -> Plan:
        if objective.roles == ("examples",):
            tables = {"examples": _encode(lm, data, settings.data, settings.chunk_length)}
        else:
            missing = {"chosen", "rejected", "prompt"} - set(data.column_names)
            if missing:
                raise UsageError(f"{settings.data} lacks the columns {', '.join(sorted(missing))}")
            tables = {r: encode(lm, data["prompt"][:], data[r][:], data["id"][:]) for r in objective.roles}
        return paired_plan(tables, {}, epochs=settings.epochs, seed=settings.seed)

    return _run("train", settings, Path(out), objective, {"data": data}, plan, on_epoch)


@contextlib.contextmanager
def _naming(source: str) -> Iterator[None]:
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{source}: {error}") from error


def _read(source: str) -> Dataset:
    rows = read_rows(source)
    if not is_text(rows):
        with _naming(source):
            question_answer(rows)
    return rows


def _encode(lm: LanguageModel, rows: Dataset, source: str, chunk_length: int | None) -> list[Encoded]:
    with _naming(source):
        return encode_rows(lm, rows, chunk_length)


def _encode_all(
    lm: LanguageModel, rows: dict[str, Dataset], settings: ForgetSettings | TrainSettings
) -> dict[str, list[Encoded]]:
    return {r: _encode(lm, table, getattr(settings, r), settings.chunk_length) for r, table in rows.items()}


def _run(
    command: str,
    settings: ForgetSettings | TrainSettings,
    out: Path,
    objective: Objective,
    rows: dict[str, Dataset],
    make_plan: Callable[[LanguageModel], Plan],
    on_epoch: OnEpoch | None,
    multiplier: Multiplier | None = None,
    made: dict[str, Dataset] | None = None,
) -> RunFolder:
    check_adapters(settings)
    config = {"command": command, **settings.model_dump()}
    defaults = {name: field.default for name, field in type(settings).model_fields.items() if not field.is_required()}
    run = RunFolder.check(out, config, defaults) if _writes() else RunFolder(out)
    if run.state.get("status") == "complete" and run.model_path.is_dir():
        return run
    transformers.set_seed(settings.seed)
    lm = _load(settings)
    freeze_vision(lm.model)
    plan = make_plan(lm)
    _try_options(lm, objective, plan)
    if objective.main.facts["limit"] and multiplier is None:
        require_limit(lm, objective, plan)
    before = lm.weights_hash()
    started = time.monotonic()
    references = _references(lm, objective, plan, settings, before)
    initial = None
    if settings.lora:
        add_adapters(lm, settings)
        initial = start_adapters(lm, settings, run.path / INITIAL, lambda: _encode_all(lm, rows, settings))
    if settings.trainable is not None:
        train_only(lm.model, settings.trainable)
    hashes = {"data": {role: rows_hash(r) for role, r in rows.items()}, "weights": {"before": before}}
    if _writes():
        run = RunFolder.create(out, config, defaults)
        versions = {name: version(name) for name in ("torch", "transformers", "peft", "datasets")}
        run.update_state(status="running", demur=demur.__version__, versions=versions, hashes=hashes)
        for name, table in (made or {}).items():
            write_rows(run.path / name, table)
        if initial is not None:
            with atomic_write(run.path / INITIAL) as temporary:
                save_file(initial, temporary)
    try:
        _fit(lm, objective, plan, references, settings, run, on_epoch, multiplier)
        if not _writes():
            return run
        if initial is not None:
            fold_adapters(lm, initial, _load(settings).model)
        with atomic_directory(run.model_path) as folder:
            lm.save(folder)
    except BaseException as error:
        status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        _note_failure(run, status, started, error)
        if disk_full(error):
            raise DemurError(f"the disk is full: free some space and run the same command again ({out})") from error
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


def _load(settings: ForgetSettings | TrainSettings) -> LanguageModel:
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
    lm: LanguageModel,
    objective: Objective,
    plan: Plan,
    references: dict[str, ReferenceScores] | None,
    settings: ForgetSettings | TrainSettings,
    run: RunFolder,
    on_epoch: OnEpoch | None,
    multiplier: Multiplier | None,
) -> None:
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
        ddp_find_unused_parameters=not objective.logits,  # nothing above the layer gets a gradient
        use_cpu=lm.device.type == "cpu",
    )
    # Several visible GPUs without a launcher would make the trainer replicate the model and split batches of dicts.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    bar = TrainingProgress(f"{settings.objective} on {lm.name}")
    callbacks: list[transformers.TrainerCallback] = [bar, _LogToRun(run)]
    if on_epoch is not None and _writes():
        callbacks.append(EpochCallback(lambda epoch: on_epoch(lm, epoch)))
    trainer = ObjectiveTrainer(lm, objective, plan, references, arguments, callbacks, multiplier)
    trainer.remove_callback(transformers.PrinterCallback)
    resumed = last_checkpoint(checkpoints)
    if resumed is not None and _writes():
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


def _writes() -> bool:
    """Whether this process writes the run folder: of several that train together, the first."""
    return os.environ.get("RANK", "0") == "0"


def _note_failure(run: RunFolder, status: str, started: float, error: BaseException) -> None:
    """Say in the folder how the run ended; a full disk may refuse even that."""
    if not _writes():
        return
    try:
        last_checkpoint(run.path / "checkpoints")  # removes a half-written one
        _count_time(run, started)
        run.update_state(status=status)
        run.log(status, reason=str(error) or type(error).__name__)
    except OSError:
        return
