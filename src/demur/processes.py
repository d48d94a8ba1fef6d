"""Pieces of work in processes of their own, some at a time, watched from the one that started them."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, cast

__all__ = ["Event", "Progress", "Task", "cores", "run_processes"]


class Progress(Protocol):
    """How a piece of work says how far it is."""

    def __call__(self, done: float, total: float, note: str = "") -> None:
        """`done` of `total` steps are done; `note` names the step under way."""


class Task(Protocol):
    """A piece of work: picklable, hashable, with a name and places for what comes up while it runs."""

    @property
    def label(self) -> str:
        """How the task is called in messages."""

    @property
    def log(self) -> Path:
        """The file that takes what its process prints."""

    @property
    def work(self) -> Path:
        """Folder of the task's temporary files, gone when it ends."""


T = TypeVar("T", bound=Task)


@dataclass(frozen=True)
class Event(Generic[T]):
    """What a watcher is told.

    `kind` is "found" (done before), "waiting", "started", "progress", "failed", or how the work says that it ended:
    "done" and so on.
    """

    task: T
    kind: str
    done: float = 0.0
    total: float = 1.0
    note: str = ""


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_processes(
    tasks: Iterable[T],
    work: Callable[[T, Progress], tuple[str, str]],
    *,
    jobs: int,
    threads: int,
    watch: Callable[[Event[T]], None],
) -> dict[T, Event[T]]:
    """Run every task in a process of its own.

    Args:
        tasks: what to run; the next one is asked for only when there is room for it.
        work: done in the process, a function of a module; returns how it ended ("done", …) and a note. What it raises
            ends the task as "failed".
        jobs: processes at a time.
        threads: threads of each.
        watch: told of every event.

    Returns:
        The last event of each task.
    """
    context = multiprocessing.get_context("spawn")
    waiting, more, ends = iter(tasks), True, dict[T, Event[T]]()
    running: dict[Any, tuple[T, Any]] = {}
    try:
        while True:
            while more and len(running) < jobs:
                task = next(waiting, None)
                if task is None:
                    more = False
                    break
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=_work, args=(task, work, threads, theirs), name=task.label)
                running[ours] = (task, process)
                process.start()
                theirs.close()
                watch(Event(task, "started"))
            if not running:
                return ends
            for channel in cast("list[Connection]", wait(list(running))):
                task, process = running[channel]
                try:
                    event = Event(task, *channel.recv())
                except EOFError:
                    process.join()
                    del running[channel]
                    if task in ends:
                        continue
                    event = Event(task, "failed", note=f"its process ended with exit code {process.exitcode}")
                if event.kind != "progress":
                    ends[task] = event
                watch(event)
    finally:
        for task, process in running.values():
            if process.pid is not None:
                process.terminate()
                process.join()
                shutil.rmtree(task.work, ignore_errors=True)


def _write_output_to(log: Path) -> None:
    """Send what this process prints to a file, so that libraries' bars and warnings do not break the parent's."""
    with log.open("wb") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)


def _work(task: Task, work: Callable[[Any, Progress], tuple[str, str]], threads: int, channel: Connection) -> None:
    """Do one task in a process of its own; the parent learns of it through `channel`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle: it ends its workers

    def end_with_parent() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # read when torch is imported, which the work does
        os.environ[variable] = str(threads)
    shutil.rmtree(task.work, ignore_errors=True)
    task.work.mkdir(parents=True)
    tempfile.tempdir = str(task.work)
    _write_output_to(task.log)
    last = 0.0

    def progress(done: float, total: float, note: str = "") -> None:
        nonlocal last
        if time.monotonic() - last > 0.1:
            last = time.monotonic()
            channel.send(("progress", done, total, note))

    try:
        kind, note = work(task, progress)
        channel.send((kind, float(kind == "done"), 1, note))
    except Exception as error:
        traceback.print_exc()
        channel.send(("failed", 0, 1, f"{type(error).__name__}: {error} (traceback in {task.log})"))
    finally:
        shutil.rmtree(task.work, ignore_errors=True)
        channel.close()
