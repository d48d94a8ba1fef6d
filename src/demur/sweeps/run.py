"""Running a sweep: in what order, within what budget, and in which processes.

Order: the first seed of every configuration, cheapest first; then the further seeds of those that are on the Pareto
front of the first; then those of the rest. A trial that would not end within the budget, by the mean time of those
that are done, is not started, nor are those after it.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demur.errors import UsageError
from demur.files import atomic_write, require_writable, write_json
from demur.processes import Event, Progress, cores, run_processes
from demur.sweeps.settings import SweepSettings
from demur.sweeps.table import Sweep, planned, read_sweep, write_tables
from demur.sweeps.trial import MARKER, Controls, Trial, controlled

if TYPE_CHECKING:
    from demur.training import ForgetSettings

__all__ = ["do", "run_sweep"]

Work = Trial | Controls
Watch = Callable[[Event[Work]], None]


def do(task: Work, progress: Progress) -> tuple[str, str]:
    """Do one piece of the work, in the process that is given to it."""
    return task.run(progress)


def run_sweep(
    settings: SweepSettings,
    out: str | os.PathLike[str],
    *,
    jobs: int | None = None,
    ray: str | None = None,
    watch: Watch = lambda event: None,
) -> Sweep:
    """Run the trials of a sweep that are not done yet, and write what all of them found.

    A folder that a sweep made before is taken up: finished trials are kept, failed ones are tried again. The recipe
    may have changed; trials that it no longer names stay in the folder and are left out of the tables.

    Args:
        settings: what to try.
        out: the sweep's folder.
        jobs: trials at a time. By default one a core; one where training uses a GPU; as many as the cluster has room
            for with Ray.
        ray: address of a Ray cluster that sees the folder under the same path, or "local"; None runs processes here.
        watch: told of every event.

    Returns:
        What was found. Trials that failed are in it with their reasons, not raised.

    Raises:
        UsageError: what is to be tried cannot be done as asked; nothing has been started then.
        DemurError: Ray cannot be reached, or one of its machines does not see the folder.
    """
    folder = Path(out).absolute()
    if jobs is not None and jobs < 1:
        raise UsageError(f"--jobs must be at least 1, not {jobs}")
    trials, controls = planned(settings, folder)
    _check_folder(folder)
    first = next(iter(trials)).settings
    _check(settings, first)
    everything = [trial for of in trials.values() for trial in of]
    found = [trial for trial in everything if trial.record().get("status") == "done"]
    still = [trial for trial in everything if trial not in found]
    budget = _Budget(settings, folder)
    for trial in found:
        budget.learn(trial)
    if still:
        budget.check(min(still, key=lambda trial: trial.cost), measure=ray is None)
    _write_recipe(settings, folder)
    (folder / "trials").mkdir(exist_ok=True)

    def told(event: Event[Work]) -> None:
        if event.kind == "failed":
            event.task.write_record("failed", reason=event.note)
        if event.kind in ("done", "failed") and isinstance(event.task, Trial):
            budget.learn(event.task)
        watch(event)

    for trial in everything:
        watch(Event(trial, "found" if trial in found else "waiting"))
    with _alone(folder), _executor(folder, first, len(still), jobs, ray) as execute, budget.counting():
        waiting: list[Work] = [] if controls is None or controls.record().get("status") == "done" else [controls]
        for stage in _stages(trials, lambda: read_sweep(folder, seeds=1)):
            waiting += [trial for trial in stage if trial in still]
            execute(budget.affordable(waiting), told)
            waiting = []
    sweep = read_sweep(folder)
    write_tables(sweep)
    return sweep


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other commands off the folder.

    Raises:
        UsageError: one works on it.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UsageError(f"another command works on {folder}: wait for it, or choose another --out") from None
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _executor(
    folder: Path, first: ForgetSettings, still: int, jobs: int | None, ray: str | None
) -> Iterator[Callable[[Iterator[Work], Watch], Any]]:
    """What runs tasks and tells a watcher: processes of this machine, or a Ray cluster."""
    if ray is not None and still:
        from demur.sweeps.cluster import Cluster

        cluster = Cluster(ray, folder, jobs, gpu=first.device != "cpu")
        try:
            yield cluster.run
        finally:
            cluster.close()
        return
    at_once = max(1, min(jobs or _room(first), still))
    threads = max(1, cores() // at_once)
    yield lambda tasks, watch: run_processes(tasks, do, jobs=at_once, threads=threads, watch=watch)


def _stages(trials: Any, read: Callable[[], Sweep]) -> Iterator[list[Trial]]:
    """First seeds, cheapest first; further seeds of the front; further seeds of the rest."""
    yield sorted((of[0] for of in trials.values()), key=lambda trial: trial.cost)
    if all(len(of) == 1 for of in trials.values()):
        return
    # The front of the first seed alone, so that a sweep that was stopped goes on in the same order.
    front = {point.configuration.name for point in read().front}
    for chosen in (True, False):
        picked = [of for c, of in trials.items() if (c.name in front) is chosen]
        yield [
            of[i]
            for i in range(1, len(next(iter(trials.values()))))
            for of in sorted(picked, key=lambda of: of[0].cost)
        ]


class _Budget:
    """Wall-clock time and number of trials, over all commands that worked on the folder."""

    def __init__(self, settings: SweepSettings, folder: Path) -> None:
        self.settings, self.file = settings, folder / "state.json"
        self.limit, self.most = settings.seconds(), settings.max_runs
        self.rates: list[float] = []
        self.begun, self.closed = 0, False
        self.clock: float | None = None
        try:
            self.before = float(json.loads(self.file.read_text(encoding="utf-8"))["seconds"])
        except (OSError, ValueError, KeyError):
            self.before = 0.0

    def spent(self) -> float:
        """Seconds so far."""
        return self.before + (time.monotonic() - self.clock if self.clock is not None else 0.0)

    def expected(self, cost: float) -> float:
        """Seconds that a trial takes, by the mean of those that are done; 0 before the first."""
        return cost * sum(self.rates) / len(self.rates) if self.rates else 0.0

    def learn(self, trial: Trial) -> None:
        """Take a trial that ended into account."""
        record = trial.record()
        if record.get("status") == "done":
            self.rates.append(record["seconds"] / trial.cost)
            if self.clock is None:
                self.begun += 1
        if self.clock is not None:
            self._keep()

    def check(self, cheapest: Trial, measure: bool) -> None:
        """Refuse a budget in which not even the cheapest trial fits.

        Args:
            cheapest: of those that are not done.
            measure: find out how long it takes at least where no trial is done yet.

        Raises:
            UsageError: it is spent, or too small.
        """
        if self.limit is None:
            return
        left = self.limit - self.spent()
        if left <= 0:
            raise UsageError(f"the budget of {self.settings.budget} is spent: give the sweep a larger one to go on")
        need = self.expected(cheapest.cost) if self.rates or not measure else shortest(cheapest.settings)
        if need > left:
            raise UsageError(
                f"of the budget of {self.settings.budget} {left:.0f} s are left, too little for one run, which takes "
                f"{need:.0f} s or more"
            )

    @contextlib.contextmanager
    def counting(self) -> Iterator[None]:
        """Inside the block time counts; what was spent is kept."""
        self.clock = time.monotonic()
        try:
            yield
        finally:
            self._keep()

    def _keep(self) -> None:
        write_json(self.file, {"seconds": round(self.spent(), 2)})

    def affordable(self, tasks: Sequence[Work]) -> Iterator[Work]:
        """The tasks, each when it is to be started, up to the first that does not fit."""
        for task in tasks:
            if isinstance(task, Trial):
                late = self.limit is not None and self.spent() + self.expected(task.cost) > self.limit
                self.closed = self.closed or late or (self.most is not None and self.begun >= self.most)
                if self.closed:
                    return
                self.begun += 1
            yield task


def _check_folder(folder: Path) -> None:
    if folder.exists() and not (folder / MARKER).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} exists and is no sweep's folder: choose another --out")
    require_writable(folder)


def _write_recipe(settings: SweepSettings, folder: Path) -> None:
    import yaml

    with atomic_write(folder / MARKER) as temporary:
        text = yaml.safe_dump(settings.model_dump(), sort_keys=False, allow_unicode=True)
        temporary.write_text(text, encoding="utf-8")


def _check(sweep: SweepSettings, first: ForgetSettings) -> None:
    """Refuse rows, models and suites that no trial could use; lab models are built now, once.

    Raises:
        UsageError: they cannot be used.
    """
    from demur.audits.removal_data import RemovalData
    from demur.audits.suites import suites
    from demur.data import question_answer, read_rows, require_disjoint
    from demur.models import resolve_model

    suites.get(sweep.audit.suite)
    sources = {name: getattr(first, name) for name in ("forget", "retain", "holdout")}
    rows = {name: read_rows(source) for name, source in sources.items() if source is not None}
    for table in rows.values():
        question_answer(table)
    for source in sweep.audit.rows.values():
        read_rows(source)
    if sweep.attack is not None:
        try:
            RemovalData.make(rows["forget"])
        except UsageError as error:
            raise UsageError(f"{error}: leave the relearning attack out (--no-attack, or attack: null)") from error
    if "retain" in rows:
        require_disjoint(rows["forget"], rows["retain"], allow_overlap=first.allow_overlap)
    resolve_model(first.model)
    if controlled(sweep.audit.reference):
        resolve_model(str(sweep.audit.reference))


def _room(settings: ForgetSettings) -> int:
    """Trials at a time on this machine."""
    import torch

    return 1 if settings.device != "cpu" and torch.cuda.is_available() else cores()


def shortest(settings: Mapping[str, Any]) -> float:
    """Seconds that a run takes at least: its steps, each at the time of one pass over a few of its rows."""
    from demur.data import collate, question_answer, read_rows
    from demur.models import encode, load_model, score

    load = {name: settings[name] for name in ("template", "device", "dtype", "trust_remote_code")}
    lm = load_model(settings["model"], **load)
    rows, size = read_rows(settings["forget"]), settings["batch_size"]
    some = rows.select(range(min(size, len(rows))))
    batch = collate(encode(lm, *question_answer(some), some["id"][:]), lm.pad_id)
    times = []
    for _ in range(2):  # the first also warms up
        began = time.perf_counter()
        score(lm.model, batch).nll.backward()
        times.append(time.perf_counter() - began)
    return min(times) * settings["epochs"] * -(-len(rows) // size)
