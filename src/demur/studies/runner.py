"""Running studies: one process a seed, each seed's measurements on disk as soon as they exist."""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demur.errors import UsageError
from demur.files import cache_dir, write_json
from demur.processes import Event, Progress, cores, run_processes
from demur.studies.registry import NotMeasured, Part, studies
from demur.studies.results import PartResult, StudyResult

__all__ = ["Event", "Task", "code_hash", "run_studies"]

_ROOMS = Path(__file__).parents[1]
_VERSIONED = ("demur", "numpy", "torch", "transformers")


@dataclass(frozen=True)
class Task:
    """One seed of one part of a study, and the file that its measurements go to."""

    study: str
    module: str
    part: str
    seed: int
    code: str
    file: Path

    @property
    def label(self) -> str:
        """How the task is called in messages."""
        return f"{self.study} {self.part} seed {self.seed}"

    @property
    def log(self) -> Path:
        """What its process printed."""
        return self.file.with_suffix(".log")

    @property
    def work(self) -> Path:
        """Folder of the task's temporary files, gone when it ends."""
        return self.file.with_suffix(".work")


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _VERSIONED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _imported_files(source: str) -> Iterable[Path]:
    for node in ast.walk(ast.parse(source)):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for name in names:
            top, *rest = name.split(".")
            if top != "demur" or not rest:
                continue
            room = _ROOMS / rest[0]
            if rest[0] == "studies":  # studies do not depend on each other, so other studies' files do not matter
                yield room.joinpath(*rest[1:]).with_suffix(".py")
            elif room.is_dir():
                yield from room.rglob("*.py")
            else:
                yield room.with_suffix(".py")


def code_hash(module: str) -> str:
    """Hash of what measurements depend on: a study's file, every room it imports, and the versions of torch and so on.

    Args:
        module: the module that the measuring function is in.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise UsageError(f"the study's module {module} has no source file")
    pending, sources = [Path(spec.origin)], dict[Path, str]()
    while pending:
        file = pending.pop()
        if file in sources or not file.is_file():
            continue
        sources[file] = file.read_text(encoding="utf-8")
        pending.extend(_imported_files(sources[file]))
    digest = hashlib.sha256(json.dumps({k: v for k, v in _versions().items() if k != "demur"}).encode())
    for content in sorted(hashlib.sha256(text.encode()).hexdigest() for text in sources.values()):
        digest.update(content.encode())
    return digest.hexdigest()[:16]


def _find_part(study: str, name: str) -> Part:
    return next(part for part in studies.get(study).facts["parts"] if part.name == name)


def _measure(task: Task, progress: Progress) -> tuple[str, str]:
    """Measure one seed and write what came out; how it ended."""
    importlib.import_module(task.module)
    began = time.monotonic()
    try:
        measurements = _find_part(task.study, task.part)(task.seed, progress)
    except NotMeasured as reason:
        return "not measured", str(reason)
    record = {"code": task.code, "seconds": round(time.monotonic() - began, 2), "measurements": measurements}
    write_json(task.file, record)
    return "done", ""


def _stored(task: Task) -> dict[str, Any] | None:
    try:
        record = json.loads(task.file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if record.get("code") == task.code else None


def _part_result(part: Part, tasks: Sequence[Task], ends: dict[Task, Event]) -> PartResult:
    records = {task.seed: record for task in tasks if (record := _stored(task)) is not None}
    result = PartResult(
        name=part.name,
        summary=part.summary,
        code=tasks[0].code,
        seeds=[task.seed for task in tasks],
        seconds={seed: record["seconds"] for seed, record in records.items()},
        measurements={seed: record["measurements"] for seed, record in records.items()},
    )
    missing = [ends[task] for task in tasks if task.seed not in records]
    failures = [event for event in missing if event.kind != "not measured"]
    if failures:
        problem = "; ".join(f"seed {event.task.seed}: {event.note}" for event in failures)
        return result.model_copy(update={"problem": problem, "failed": True})
    if missing:
        return result.model_copy(update={"problem": missing[0].note})
    try:
        return result.model_copy(update={"claims": part.check(result.measurements)})
    except Exception as error:
        return result.model_copy(update={"problem": f"its claims: {type(error).__name__}: {error}", "failed": True})


def run_studies(
    slugs: Sequence[str],
    *,
    seeds: Sequence[int] | None = None,
    jobs: int | None = None,
    out: str | os.PathLike[str] | None = None,
    watch: Callable[[Event], None] = lambda event: None,
) -> list[StudyResult]:
    """Run studies; seeds that the same code has measured before are read from disk.

    Args:
        slugs: which studies.
        seeds: seeds for every part; each part's own by default.
        jobs: processes at a time; by default one per core, and no more than there are seeds to measure. The cores
            are divided among them.
        out: folder for the measurements; by default in the cache, by study and code hash.
        watch: told of every event.

    Returns:
        One result a study, in the order asked for. Failures are in them, not raised.

    Raises:
        UsageError: a study is unknown, `jobs` is not positive, or there are no seeds.
    """
    if jobs is not None and jobs < 1:
        raise UsageError(f"--jobs must be at least 1, not {jobs}")
    if seeds is not None and not seeds:
        raise UsageError("at least one seed is needed")
    plan: list[tuple[str, Part, list[Task]]] = []
    for slug in dict.fromkeys(slugs):
        for part in studies.get(slug).facts["parts"]:
            module = part.measure.__module__
            code = code_hash(module)
            folder = Path(out) / slug if out is not None else cache_dir() / "studies" / slug / code
            wanted = dict.fromkeys(seeds if seeds is not None else part.seeds)
            files = {seed: folder / part.name / f"seed-{seed}.json" for seed in wanted}
            tasks = [Task(slug, module, part.name, seed, code, file) for seed, file in files.items()]
            plan.append((slug, part, tasks))
    open_tasks = []
    for task in (task for *_, tasks in plan for task in tasks):
        found_before = _stored(task) is not None
        watch(Event(task, "found" if found_before else "waiting"))
        open_tasks += [] if found_before else [task]
    jobs = max(1, min(jobs or cores(), len(open_tasks)))
    ends = run_processes(open_tasks, _measure, jobs=jobs, threads=max(1, cores() // jobs), watch=watch)
    results: dict[str, StudyResult] = {}
    for slug, part, tasks in plan:
        found = _part_result(part, tasks, ends)
        if slug in results:
            results[slug].parts.append(found)
        else:
            paper = studies.get(slug).facts["paper"]
            results[slug] = StudyResult(study=slug, paper=paper, versions=_versions(), parts=[found])
    return list(results.values())
