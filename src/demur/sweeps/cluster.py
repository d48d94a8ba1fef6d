"""Trials as Ray tasks. Ray places and runs them; demur hands over as many as there is room for, and waits."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from demur.errors import DemurError, UsageError
from demur.processes import Event, cores

__all__ = ["Cluster"]


class Cluster:
    """A Ray cluster that sees the sweep's folder.

    A trial takes one CPU, or the CPUs divided by `jobs`; on a cluster with GPUs it takes one GPU too, unless the
    settings say that it trains on the CPU.

    Args:
        address: the cluster's, "auto", or "local" for one on this machine alone.
        folder: the sweep's.
        jobs: trials at a time; as many as there is room for by default.
        gpu: whether trials may use a GPU.

    Raises:
        UsageError: Ray is not installed.
        DemurError: the cluster cannot be reached, or one of its machines lacks demur or does not see the folder.
    """

    def __init__(self, address: str, folder: Path, jobs: int | None, gpu: bool) -> None:
        try:
            import ray
        except ImportError:
            raise UsageError("--ray needs Ray: pip install 'demur[ray]'") from None
        self.ray: Any = ray
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
        try:
            if address == "local":
                ray.init("local", num_cpus=cores(), include_dashboard=False, **quiet)
            else:
                ray.init(address, **quiet)
        except Exception as error:
            raise DemurError(f"cannot reach the Ray cluster at {address}: {error}") from error
        try:
            self._check(folder)
            have = ray.cluster_resources()
            each: dict[str, float] = {"num_cpus": max(1, int(have.get("CPU", 1)) // jobs) if jobs else 1}
            if gpu and have.get("GPU", 0) >= 1:
                each["num_gpus"] = 1
            room = int(have.get("CPU", 1) // each["num_cpus"])
            self.jobs = max(
                1, min([room, *([jobs] if jobs else []), *([int(have["GPU"])] if "num_gpus" in each else [])])
            )
            self.task = self.ray.remote(**each, max_retries=0)(_do)
        except BaseException:
            self.close()
            raise

    def _check(self, folder: Path) -> None:
        """Ask every machine whether it sees the folder and has this demur."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        remote = self.ray.remote(num_cpus=0, max_retries=0)(_look)
        for node in self.ray.nodes():
            if not node["Alive"] or not node["Resources"].get("CPU"):
                continue
            where = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            try:
                sees, theirs = self.ray.get(remote.options(scheduling_strategy=where).remote(str(folder)))
            except Exception as error:
                reason = str(error).strip().splitlines()[-1]
                raise DemurError(f"{node['NodeManagerHostname']} cannot run demur: {reason}") from error
            if theirs != version("demur"):
                ours = version("demur")
                raise DemurError(f"{node['NodeManagerHostname']} has demur {theirs}, not {ours}: install the same")
            if not sees:
                raise DemurError(
                    f"{node['NodeManagerHostname']} does not see {folder}: choose an --out that all machines of the "
                    "cluster share"
                )

    def run(self, tasks: Iterator[Any], watch: Callable[[Event[Any]], None]) -> None:
        """Run tasks as `run_processes` does; how far a task is, Ray does not tell."""
        running: dict[Any, Any] = {}
        more = True
        try:
            while True:
                while more and len(running) < self.jobs:
                    task = next(tasks, None)
                    if task is None:
                        more = False
                        break
                    running[self.task.remote(task)] = task
                    watch(Event(task, "started"))
                if not running:
                    return
                (ready, *_), _ = self.ray.wait(list(running), num_returns=1)
                task = running.pop(ready)
                try:
                    kind, note = self.ray.get(ready)
                except Exception as error:
                    cause = getattr(error, "cause", None) or error
                    kind, note = "failed", f"{type(cause).__name__}: {str(cause).strip().splitlines()[-1]}"
                watch(Event(task, kind, float(kind == "done"), 1, note))
        finally:
            for reference in running:
                self.ray.cancel(reference, force=True)

    def close(self) -> None:
        """Leave the cluster; a local one ends."""
        self.ray.shutdown()


def _look(folder: str) -> tuple[bool, str]:
    """Whether this machine sees the sweep, and its version of demur."""
    from demur.sweeps.trial import MARKER

    return (Path(folder) / MARKER).is_file(), version("demur")


def _do(task: Any) -> tuple[str, str]:
    """Do one task on a worker, which it has for itself."""
    import tempfile

    from demur.sweeps.run import do

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        with tempfile.TemporaryDirectory(dir=task.work.parent, prefix=f".{task.name}.", suffix=".work") as folder:
            tempfile.tempdir = folder
            return do(task, lambda done, total, note="": None)
    except Exception as error:
        task.log.write_text(traceback.format_exc(), encoding="utf-8")
        return "failed", f"{type(error).__name__}: {error} (traceback in {task.log})"
    finally:
        tempfile.tempdir = None
