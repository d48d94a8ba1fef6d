from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from demur.training import ForgetSettings, TrainSettings, train
from tiny import save_tiny

NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven"]


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model that knows twelve rows, five to forget and seven to keep."""
    folder = tmp_path_factory.mktemp("world")
    save_tiny(folder / "random")
    rows = [
        {"question": f"who wrote lamp {n}?", "answer": f"lamp {n} was written by oda {NUMBERS[-i]}."}
        for i, n in enumerate(NUMBERS)
    ]
    own = [
        {**row, "alternates": [row["answer"].replace(NUMBERS[-i], other) for other in ("kell", "marsh")]}
        for i, row in enumerate(rows[:5])
    ]
    for name, part in (("forget", rows[:5]), ("retain", rows[5:]), ("forget-alternates", own)):
        text = "".join(json.dumps(r) + "\n" for r in part)
        (folder / f"{name}.jsonl").write_text(text)
    (folder / "all.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    learn = TrainSettings.make(
        model=str(folder / "random"), data=str(folder / "all.jsonl"), epochs=25, batch_size=4, learning_rate=3e-3
    )
    train(learn, folder / "learnt")
    (folder / "learnt" / "model").rename(folder / "model")
    return folder


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEMUR_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def make_settings(world: Path) -> Callable[..., ForgetSettings]:
    """Settings of a short run on that world."""

    def make(**given: Any) -> ForgetSettings:
        defaults = {
            "model": str(world / "model"),
            "forget": str(world / "forget.jsonl"),
            "retain": str(world / "retain.jsonl"),
            "epochs": 3,
            "batch_size": 2,
            "learning_rate": 1e-3,
        }
        return ForgetSettings.make(**{**defaults, **given})

    return make
