from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may reach for a hub
settings.register_profile("demur", deadline=None)
settings.load_profile("demur")

SHARED = Path(os.environ.get("DEMUR_SHARED_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """Path of a folder of the real data sets; skips the test where it is absent."""

    def find(name: str) -> Path:
        folder = SHARED / name
        if not folder.is_dir():
            pytest.skip(f"needs the real data set {name!r}: set DEMUR_SHARED_DATA to the folder that holds it")
        return folder

    return find


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Workers share the cores; more threads than cores only makes tiny models slower."""
    import torch

    torch.set_num_threads(1)
