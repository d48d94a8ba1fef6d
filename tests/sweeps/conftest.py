from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from demur.processes import Event
from demur.sweeps import SweepSettings, run

MODEL, GOLD = "lab:almanac-tiny", "lab:almanac-tiny-gold"


@pytest.fixture(scope="session")
def recipe(tiny_model: Path, tiny_gold: Path) -> dict[str, Any]:
    """Two objectives, two rates and two seeds on the small lab model, measured quickly."""
    return {
        "settings": {
            "model": MODEL,
            "forget": f"{MODEL}:forget",
            "retain": f"{MODEL}:retain",
            "epochs": 1,
            "schedule": "constant",
        },
        "objectives": ["npo", "graddiff"],
        "grid": {"learning_rate": [1e-4, 1e-3]},
        "seeds": [1, 2],
        "audit": {"reference": GOLD, "options": {"max_new_tokens": 4, "attacks": ["loss"]}},
        "attack": {"steps": [2]},
    }


@pytest.fixture
def make(recipe: dict[str, Any]) -> Callable[..., SweepSettings]:
    """Settings of that sweep, with some changed."""
    return lambda **changes: SweepSettings.make(**{**recipe, **changes})


def _here(tasks: Iterator[Any], work: Any, *, jobs: int, threads: int, watch: Callable[[Event[Any]], None]) -> None:
    """`run_processes`, in this process and one after another: what is under test is not processes but the order."""
    for task in tasks:
        watch(Event(task, "started"))
        try:
            kind, note = work(task, lambda done, total, note="": None)
        except Exception as error:
            kind, note = "failed", f"{type(error).__name__}: {error}"
        watch(Event(task, kind, note=note))


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sweeps run in this process."""
    monkeypatch.setattr(run, "run_processes", _here)
