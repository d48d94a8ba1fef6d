"""What run folders hold, brought together: each run's results, and which models the runs share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from demur.errors import UsageError
from demur.runs import Result, RunFolder

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MAIN_SUITE", "Evidence", "Model", "Role", "Run", "read_runs"]

MAIN_SUITE = "tofu"
TRAJECTORY = "trajectory"
Role = Literal["before", "reference", "run"]
ROLES: tuple[Role, ...] = ("before", "reference", "run")


@dataclass(frozen=True)
class Run:
    """One run folder, read.

    Attributes:
        label: its name in the report, unique among the runs.
        folder: where it lies.
        suite: the suite that the report is about; "tofu" where it was run.
        results: role → metric → result of the final model; those of suites other than TOFU's are named
            `suite/metric`.
        trajectory: metric → results of the run's model by epoch, in order.
    """

    label: str
    folder: RunFolder
    suite: str
    results: Mapping[str, Mapping[str, Result]]
    trajectory: Mapping[str, Sequence[Result]]

    @cached_property
    def config(self) -> dict[str, Any]:
        """The run's resolved settings."""
        return self.folder.config or {}

    @cached_property
    def state(self) -> dict[str, Any]:
        """The run's state: stage, hashes and whatever else was recorded."""
        return self.folder.state

    @cached_property
    def events(self) -> list[dict[str, Any]]:
        """What happened, in order."""
        return self.folder.events()

    @cached_property
    def preference_steps(self) -> dict[str, list[dict[str, Any]]]:
        """Logged steps of training on preference pairs, by stage; a run without stages is one, under its own label."""
        return self._steps_with("chosen_logps")

    @cached_property
    def target_steps(self) -> dict[str, list[dict[str, Any]]]:
        """Logged steps of training on rows with targets, in the same way."""
        return self._steps_with("target_part")

    @cached_property
    def _stage_events(self) -> dict[str, list[dict[str, Any]]]:
        stages = {path.name: RunFolder(path) for path in sorted((self.folder.path / "stages").glob("*"))}
        return {name: stage.events() for name, stage in stages.items()} | {self.label: self.events}

    def _steps_with(self, field: str) -> dict[str, list[dict[str, Any]]]:
        kept = {name: [e for e in events if field in e and "step" in e] for name, events in self._stage_events.items()}
        return {name: _last_of_each(steps) for name, steps in kept.items() if steps}

    def audit(self, role: str) -> dict[str, Any]:
        """What the last audit of a role logged: the model's name, and notes by metric; empty without one."""
        found = [e for e in self.events if e.get("event") == "audit" and e.get("role") == role]
        return next((e for e in reversed(found) if e.get("suite") == self.suite), {})

    def hashes(self, kind: str) -> dict[str, str]:
        """The recorded hashes of "data" or "weights"; empty where none were recorded."""
        found = (self.state.get("hashes") or {}).get(kind) or {}
        return {str(name): str(value) for name, value in found.items() if value}


@dataclass
class Model:
    """A model that was measured: one row of the headline table.

    Attributes:
        label: "before", "gold", or the run's label; with the runs' labels in brackets where there are several.
        role: "before", "reference" or "run".
        results: metric → result.
        runs: the runs whose folders hold these results.
        has_reference: whether a gold model was audited along with it.
        notes: metric → why it has no value, or what to know about it.
    """

    label: str
    role: Role
    results: dict[str, Result]
    runs: list[Run] = field(default_factory=list)
    has_reference: bool = False
    notes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Evidence:
    """All runs of a report and all distinct models that were measured for them."""

    runs: Sequence[Run]
    models: Sequence[Model]

    def model(self, run: Run, role: str) -> Model | None:
        """The model that plays `role` for `run`."""
        return next((m for m in self.models if m.role == role and run in m.runs), None)

    def of_role(self, role: str) -> list[Model]:
        """All distinct models that play `role`."""
        return [m for m in self.models if m.role == role]


def read_runs(folders: Sequence[RunFolder]) -> Evidence:
    """Read the results of run folders.

    Models before and gold models with the same numbers count as the same model: runs that share one show it once.

    Raises:
        UsageError: there is no run, a run is named twice, or one was not audited and logged nothing to show.
    """
    if not folders:
        raise UsageError("no run to report on: name at least one run folder")
    labels = _labels([folder.path for folder in folders])
    runs = [_read(folder, label) for folder, label in zip(folders, labels, strict=True)]
    shown = [bool(run.results.get("run") or run.preference_steps or run.target_steps) for run in runs]
    unaudited = [str(run.folder.path) for run, found in zip(runs, shown, strict=True) if not found]
    if unaudited:
        first = unaudited[0]
        names = ", ".join(unaudited)
        verb = "has" if len(unaudited) == 1 else "have"
        raise UsageError(f"{names} {verb} no audit results: run `demur audit {first}` first")
    return Evidence(runs, [*_shared(runs, "before"), *_shared(runs, "reference"), *_own(runs)])


def _last_of_each(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Steps in order, each as it was logged last: a run that was killed and went on repeats some."""
    by_number = {step["step"]: step for step in steps}
    return [by_number[number] for number in sorted(by_number)]


def _labels(paths: Sequence[Path]) -> list[str]:
    """The shortest path endings that tell the paths apart."""
    whole = [path.resolve().parts for path in paths]
    if len(set(whole)) < len(whole):
        twice = next(path for path, parts in zip(paths, whole, strict=True) if whole.count(parts) > 1)
        raise UsageError(f"{twice} is named twice: name each run folder once")
    depth = 1
    while len({parts[-depth:] for parts in whole}) < len(whole):
        depth += 1
    return [Path(*parts[-depth:]).as_posix() for parts in whole]


def _read(folder: RunFolder, label: str) -> Run:
    rows = _rows(folder.results())
    suites = [r.suite for r in rows if r.role == "run" and r.epoch is None and r.suite != TRAJECTORY]
    suite = min(suites, key=lambda name: (name != MAIN_SUITE, not name.startswith(MAIN_SUITE)), default=MAIN_SUITE)
    main = suite if suite.startswith(MAIN_SUITE) else None
    results: dict[str, dict[str, Result]] = {role: {} for role in ROLES}
    trajectory: dict[str, list[Result]] = {}
    for result in rows:
        if result.epoch is not None:
            if result.role == "run":
                trajectory.setdefault(result.metric, []).append(result)
        elif result.suite != TRAJECTORY:
            name = result.metric if result.suite == main else f"{result.suite}/{result.metric}"
            results.setdefault(result.role, {})[name] = result
    for points in trajectory.values():
        points.sort(key=lambda r: r.epoch or 0.0)
    return Run(label, folder, suite, results, trajectory)


def _rows(table: pd.DataFrame) -> list[Result]:
    """The rows of a results table as `Result`s; what parquet made of None (NaN) is None again."""
    names = [f.name for f in fields(Result)]
    out = []
    for record in table.reindex(columns=names).to_dict("records"):
        clean: dict[str, Any] = {}
        for name, value in record.items():
            key = str(name)
            absent = value is None or (isinstance(value, float) and math.isnan(value))
            clean[key] = None if absent else value
        for name in ("n", "unscored"):
            clean[name] = int(clean[name] or 0)
        for name in ("value", "low", "high", "epoch"):
            clean[name] = None if clean[name] is None or math.isinf(clean[name]) else float(clean[name])
        clean["seed"] = None if clean["seed"] is None else int(clean["seed"])
        clean["seconds"] = float(clean["seconds"] or 0.0)
        for name, default in (("role", "run"), ("better", "none"), ("method", "none")):
            clean[name] = clean[name] or default
        out.append(Result(**clean))
    return out


def _own(runs: Sequence[Run]) -> list[Model]:
    return [
        Model(r.label, "run", dict(r.results["run"]), [r], bool(r.results.get("reference")), _notes(r, "run"))
        for r in runs
    ]


def _notes(run: Run, role: str) -> dict[str, str]:
    return {str(metric): str(note) for metric, note in (run.audit(role).get("notes") or {}).items() if note}


def _shared(runs: Sequence[Run], role: Literal["before", "reference"]) -> list[Model]:
    models: list[Model] = []
    for run in runs:
        results = run.results.get(role) or {}
        if not results:
            continue
        same = next((m for m in models if _same(m, run, role, results)), None)
        if same is None:
            same = Model("", role, {}, [], True)
            models.append(same)
        same.results.update({k: v for k, v in results.items() if k not in same.results})
        same.has_reference = same.has_reference and (role == "reference" or bool(run.results.get("reference")))
        same.notes = _notes(run, role) | same.notes
        same.runs.append(run)
    name = {"before": "before", "reference": "gold"}[role]
    for model in models:
        model.label = name if len(models) == 1 else f"{name} ({', '.join(r.label for r in model.runs)})"
    return models


def _same(model: Model, run: Run, role: str, results: Mapping[str, Result]) -> bool:
    known, new = model.runs[0].hashes("weights").get(role), run.hashes("weights").get(role)
    if known and new and known != new:
        return False
    common = [name for name in results if name in model.results]
    return bool(common) and all(_equal(model.results[name], results[name]) for name in common)


def _equal(one: Result, other: Result) -> bool:
    if one.n != other.n or (one.value is None) != (other.value is None):
        return False
    return one.value is None or other.value is None or math.isclose(one.value, other.value, rel_tol=1e-6, abs_tol=1e-12)
