"""Each side in a process of its own, in turn; wall time and peak resident memory."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def resident(field: str = "VmRSS") -> int:
    """This process's resident memory in bytes, now (VmRSS) or at its peak since the last reset (VmHWM)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {field} in /proc/self/status: peak memory is measured on Linux only")


def measured(work: Callable[[], Any]) -> tuple[Any, float, int]:
    """What the work returns, its seconds, and its peak memory above what was resident before, in bytes."""
    before = resident()
    Path("/proc/self/clear_refs").write_text("5")
    started = time.perf_counter()
    value = work()
    return value, time.perf_counter() - started, resident("VmHWM") - before


def in_turn(module: str, sides: Sequence[str], rounds: int, arguments: list[str]) -> dict[str, list[dict[str, Any]]]:
    """Run `python -m module SIDE` for both sides alternately; each prints one JSON line last."""
    out: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "TRANSFORMERS_VERBOSITY": "error"}
    for turn in range(rounds):
        for side in sides if turn % 2 == 0 else sides[::-1]:
            command = [sys.executable, "-m", module, side, *arguments]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
            record = json.loads(done.stdout.splitlines()[-1])
            print(f"  {side} {turn + 1}/{rounds}: {record}", flush=True)
            out[side].append(record)
    return out


def ratio(records: dict[str, list[dict[str, Any]]], ours: str, peer: str, field: str) -> dict[str, float]:
    """Median over the rounds of ours / peer, with the smallest and the largest."""
    values = [a[field] / b[field] for a, b in zip(records[ours], records[peer], strict=True)]
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def save(name: str, result: dict[str, Any]) -> None:
    """Write a benchmark's result with the machine it ran on."""
    import torch
    import transformers

    machine = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps({**result, "machine": machine}, indent=1) + "\n")
