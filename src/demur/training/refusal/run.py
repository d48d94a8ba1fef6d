"""`demur refuse`: a method's stages, one training run after another, in one run folder."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import demur
from demur.data.readers import read_rows
from demur.data.rows import rows_hash
from demur.data.writers import write_rows
from demur.errors import UnknownNameError, UsageError
from demur.files import atomic_directory, write_json
from demur.models.language_model import load_model
from demur.registry import nearest
from demur.runs import RunFolder
from demur.training.execution import load, writes
from demur.training.objective import Objective
from demur.training.progress import progress_bar
from demur.training.refusal.plain import by_objective, is_taught_by
from demur.training.refusal.registry import Lesson, Stage, refusal_methods
from demur.training.run import train
from demur.training.settings import RefuseSettings, TrainSettings

__all__ = ["check_method", "plan_stages", "refuse"]

_PLAN = "stages.json"
_PREPARED = "prepared"
_MERGED = "merged"


def check_method(name: str) -> None:
    """Refuse what is neither a refusal method nor an objective on rows or pairs.

    Raises:
        UnknownNameError: there is no such method.
    """
    if name not in refusal_methods.names() and not is_taught_by(name):
        from demur.objectives import objectives

        known = [*refusal_methods.names(), *filter(is_taught_by, objectives.names())]
        raise UnknownNameError(f"unknown refusal method {name!r}: {nearest(name, known)}")


def plan_stages(lesson: Lesson, method: str, options: Mapping[str, Any] | None = None) -> list[Stage]:
    """The stages that a method is made of, with their rows.

    Args:
        lesson: the plain rows and the model.
        method: name of a refusal method, or of an objective on rows or on pairs.
        options: the method's own.

    Raises:
        UsageError: the method or an option is unknown, or the rows lack a column.
    """
    check_method(method)
    options = dict(options or {})
    if method not in refusal_methods.names():
        return by_objective(lesson, method, options)
    component = refusal_methods.get(method)
    component.check_options(options)
    known = set(lesson.rows.column_names)
    same = {"prompt": "question", "question": "prompt", "response": "answer", "answer": "response"}
    for column in component.facts["columns"]:
        if column not in known and same.get(column) not in known:
            raise UsageError(f"{lesson.source} has no column {column!r}, which method {method!r} needs")
    try:
        return list(component.function(lesson, **options))
    except ValueError as error:
        raise UsageError(f"method {method!r} on {lesson.source}: {error}") from error


def refuse(settings: RefuseSettings, out: str | Path) -> RunFolder:
    """Teach a model when to say no: build the method's rows, then train its stages one after another.

    The rows of each stage lie in `rows/` and its training run in `stages/`. A folder that the same settings made before
    is taken up where it stopped, and ends with the same weights.

    Args:
        settings: the model, the rows and the method.
        out: the run folder.

    Returns:
        The run folder; its `model/` loads with transformers (or peft, for one stage with adapters).

    Raises:
        UsageError: the settings, the data or the model are not fit for use.
        DemurError: training failed; what was finished is kept.
    """
    check_method(settings.method)
    if not writes():
        return _follow(settings, Path(out))
    rows = read_rows(settings.data)
    config = {"command": "refuse", **settings.model_dump()}
    defaults = {name: field.default for name, field in RefuseSettings.model_fields.items() if not field.is_required()}
    run = RunFolder.check(out, config, defaults)
    if run.state.get("status") == "complete" and run.model_path.is_dir():
        return run
    if not (run.path / _PLAN).is_file():
        with progress_bar() as bar:
            task = bar.add_task("building rows", total=None, note="")

            def told(done: int, total: int, what: str) -> None:
                bar.update(task, description=what, completed=done, total=total)

            lesson = Lesson(rows, settings.data, settings.seed, lambda: load(settings), told)
            stages = plan_stages(lesson, settings.method, settings.method_options)
        for stage in stages:
            Objective.make(stage.objective, stage.options)
        run = RunFolder.create(out, config, defaults)
        run.update_state(status="running", demur=demur.__version__, hashes={"data": {"data": rows_hash(rows)}})
        _keep_plan(run, stages, lesson)
    plan = json.loads((run.path / _PLAN).read_text(encoding="utf-8"))
    if not run.model_path.is_dir():  # else what is left is to say that it is there
        try:
            _train_stages(run, plan, settings)
        except BaseException as error:
            stopped = isinstance(error, KeyboardInterrupt)
            run.update_state(status="interrupted" if stopped else "failed")
            raise
    _finish(run, plan, settings)
    return run


def _follow(settings: RefuseSettings, out: Path) -> RunFolder:
    """Take part in the stages' training, of several processes the ones that leave planning and writing to the first."""
    _await(out / _PLAN)
    run = RunFolder(out)
    if run.state.get("status") != "complete":
        _train_stages(run, json.loads((out / _PLAN).read_text(encoding="utf-8")), settings)
    return run


def _await(path: Path) -> None:
    """Wait for what the first process writes in one step; should it fail, the launcher ends this one too."""
    while not path.exists():
        time.sleep(0.1)


def _train_stages(run: RunFolder, plan: list[dict[str, Any]], settings: RefuseSettings) -> None:
    """Train what is not trained yet, and put the last stage's model into place."""
    model = str(run.path / _PREPARED) if (run.path / _PREPARED).is_dir() else settings.model
    for stage in plan:
        fixed = {k: v for k, v in stage["settings"].items() if k not in settings.model_fields_set}
        shared = {k: v for k, v in settings.model_dump().items() if k in TrainSettings.model_fields}
        shared |= {"model": model, "data": str(run.path / stage["rows"]), **fixed}
        shared |= {"objective": stage["objective"], "objective_options": stage["options"]}
        done = train(TrainSettings(**shared), run.path / "stages" / stage["name"])
        source = done.model_path
        if settings.lora and (stage is not plan[-1] or model != settings.model):
            source = _merged(done, settings) if writes() else done.path / _MERGED
        if not writes() and stage is not plan[-1]:
            _await(source)
        model = str(source)
    if not writes():
        return
    for stage in plan:
        for name, content in stage["files"].items():
            write_json(source / name, content)
    source.rename(run.model_path)


def _keep_plan(run: RunFolder, stages: list[Stage], lesson: Lesson) -> None:
    """Write the stages' rows, the prepared model and, last of all, what the stages are."""
    if any(stage.prepare for stage in stages[1:]):
        raise UsageError("only the first stage of a method may prepare the model")
    kept = []
    for number, stage in enumerate(stages, 1):
        name = f"{number}-{stage.objective}"
        write_rows(run.path / "rows" / f"{name}.jsonl", stage.rows)
        facts = {"name": name, "rows": f"rows/{name}.jsonl", "count": len(stage.rows), "objective": stage.objective}
        facts |= {"options": dict(stage.options), "settings": dict(stage.settings)}
        kept.append({**facts, "files": dict(stage.files), "notes": list(stage.notes)})
        for note in stage.notes:
            run.log("note", stage=name, note=note)
    if stages[0].prepare is not None:
        lm = lesson.model()
        stages[0].prepare(lm)
        with atomic_directory(run.path / _PREPARED) as folder:
            lm.save(folder)
    write_json(run.path / _PLAN, kept)


def _merged(stage: RunFolder, settings: RefuseSettings) -> Path:
    """A stage's model, its adapters merged into the weights they stand on."""
    import peft

    merged = stage.path / _MERGED
    if not merged.is_dir():
        lm = load_model(
            stage.path, template=settings.template, dtype=settings.dtype, trust_remote_code=settings.trust_remote_code
        )
        if isinstance(lm.model, peft.PeftModel):
            lm.model = lm.model.merge_and_unload()
        with atomic_directory(merged) as folder:
            lm.save(folder)
    return merged


def _finish(run: RunFolder, plan: list[dict[str, Any]], settings: RefuseSettings) -> None:
    """Say in the folder what came of it, and drop the weights that led there."""
    states = [RunFolder.open(run.path / "stages" / stage["name"]).state for stage in plan]
    lm = load_model(run.path, template=settings.template, device="cpu", trust_remote_code=settings.trust_remote_code)
    weights = {"before": states[0]["hashes"]["weights"]["before"], "after": lm.weights_hash()}
    run.update_state(
        status="complete",
        hashes={**run.state["hashes"], "weights": weights},
        template=lm.template,
        seconds=round(sum(state["seconds"] for state in states), 2),
        notes=[note for stage in plan for note in stage["notes"]],
    )
    shutil.rmtree(run.path / _PREPARED, ignore_errors=True)
    for stage in plan:
        for left in ("model", _MERGED):
            shutil.rmtree(run.path / "stages" / stage["name"] / left, ignore_errors=True)
