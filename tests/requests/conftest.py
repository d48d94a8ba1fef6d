from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli.command import FORGET as ROWS
from demur.requests import Ledger
from reports.conftest import browser

__all__ = ["browser"]

SHORT = {
    "learning_rate": 5e-4,
    "epochs": 3,
    "batch_size": 4,
    "schedule": "constant",
    "retain_objective": "nll",
    "save_steps": 10**6,
    "device": "cpu",
}


@pytest.fixture
def make_ledger(tiny_model: Path, tmp_path: Path) -> Callable[..., Ledger]:
    """Makes a ledger of the small lab model; what is given overrides how it forgets."""

    def make(name: str = "ledger", **given: Any) -> Ledger:
        settings = {"model": str(tiny_model), "retain": "lab:almanac-tiny:retain", **SHORT, **given}
        return Ledger.create(tmp_path / name, **settings)

    return make


@pytest.fixture(scope="session")
def answered_once(tiny_model: Path, tiny_gold: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger with three answered requests, the third about rows of the other two, and one that waits."""
    folder = tmp_path_factory.mktemp("answered") / "ledger"
    retain, gold = "lab:almanac-tiny:retain", str(tiny_gold)
    ledger = Ledger.create(folder, model=str(tiny_model), retain=retain, reference=gold, **{**SHORT, "epochs": 8})
    ledger.add(f"{ROWS}[0:4]", "ann@example.org", reason="article 17", note="by letter")
    ledger.add(f"{ROWS}[4:8]", "bob@example.org")
    ledger.add(f"{ROWS}[2:6]", "cleo@example.org")
    ledger.process()
    ledger.add(f"{ROWS}[8:10]", "dora@example.org")
    return folder


@pytest.fixture
def answered(answered_once: Path, tmp_path: Path) -> Ledger:
    """A copy of that ledger to do anything to."""
    shutil.copytree(answered_once, tmp_path / "answered")
    return Ledger.open(tmp_path / "answered")
