from __future__ import annotations

import os
from collections.abc import Callable, Iterator
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


@pytest.fixture(scope="session", autouse=True)
def lab_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One cache of lab models for all tests and all test processes, so that none trains what another did."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with pytest.MonkeyPatch.context() as patch:
        folder = Path(os.environ.get("DEMUR_CACHE") or shared / "demur-cache")
        patch.setenv("DEMUR_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def tiny_model(lab_cache: Path) -> Path:
    """The small Almanac model, trained once for all tests."""
    from demur.lab import model_path

    return model_path("almanac-tiny", progress=False)


@pytest.fixture(scope="session")
def tiny_gold(lab_cache: Path) -> Path:
    """The same without the forget set."""
    from demur.lab import model_path

    return model_path("almanac-tiny-gold", progress=False)
