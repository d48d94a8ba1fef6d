"""Ten runs audited in one command against ten commands: `python -m benchmarks.many_audits`.

Both sides are what a person types, process start and reference included, each round with a cache that holds the lab
models and no audit. The numbers in the run folders must be the same.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import measure

MODEL, GOLD = "lab:almanac-tiny", "lab:almanac-tiny-gold"
RUNS = 10
ROUNDS = 1  # ten commands are ten starts, which evens them out


def build(folder: Path) -> None:
    """Ten finished runs of the small lab model, which differ in seed and rate; the lab models are built with them."""
    from demur.models import resolve_model
    from demur.training import ForgetSettings, forget

    os.environ["DEMUR_CACHE"] = str(folder / "cache")
    for name in (MODEL, GOLD):
        resolve_model(name)
    for i in range(RUNS):
        rows = {"forget": f"{MODEL}:forget", "retain": f"{MODEL}:retain", "holdout": f"{MODEL}:holdout"}
        rate = (1e-4, 1e-3)[i % 2]
        forget(ForgetSettings.make(model=MODEL, **rows, epochs=1, learning_rate=rate, seed=i), folder / f"run-{i}")


def audit(folder: Path, together: bool) -> dict[str, Any]:
    """Audit all runs, with one command or with ten; seconds, and every run's numbers."""
    cache = folder / "cache"
    shutil.rmtree(cache / "audits", ignore_errors=True)
    runs = [folder / f"run-{i}" for i in range(RUNS)]
    for run in runs:
        (run / "results.parquet").unlink(missing_ok=True)
    started = time.perf_counter()
    for chosen in [runs] if together else [[run] for run in runs]:
        command = [sys.executable, "-m", "demur", "audit", *map(str, chosen), "--reference", GOLD]
        environment = {**os.environ, "DEMUR_CACHE": str(cache)}
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    return {"seconds": time.perf_counter() - started, "numbers": [numbers(run) for run in runs]}


def numbers(run: Path) -> dict[str, float | None]:
    """What an audit wrote into a run folder."""
    from demur.runs import RunFolder

    table = RunFolder(run).results()
    table = table[table["suite"] == "tofu"]
    values = zip(table["role"], table["metric"], table["value"], strict=True)
    return {f"{role} {metric}": None if value != value else float(value) for role, metric, value in values}


def compare(folder: Path) -> dict[str, Any]:
    """Both sides in turn, and the ratio."""
    build(folder)
    records: dict[str, list[dict[str, Any]]] = {"one": [], "ten": []}
    for turn in range(ROUNDS):
        for side in ("one", "ten") if turn % 2 == 0 else ("ten", "one"):
            records[side].append(audit(folder, side == "one"))
            print(f"  {side} {turn + 1}/{ROUNDS}: {records[side][-1]['seconds']:.1f} s", flush=True)
    for ours, theirs in zip(records["one"], records["ten"], strict=True):
        if ours.pop("numbers") != theirs.pop("numbers"):
            raise SystemExit("one command and ten commands found different numbers")
    result = {
        "benchmark": f"TOFU audits of {RUNS} runs of a small lab model, one command against {RUNS}",
        "target": {"seconds": 0.6},
        "ratio": {"seconds": measure.ratio(records, "one", "ten", "seconds")},
        "runs": records,
    }
    measure.save("many_audits", result)
    return result


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as holder:
        print(json.dumps(compare(Path(holder))["ratio"], indent=1))
