from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


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
    """Folder of `lab:almanac-tiny`, trained on all its splits but holdout."""
    from demur.lab import model_path

    return model_path("almanac-tiny", progress=False)


@pytest.fixture(scope="session")
def tiny_gold(lab_cache: Path) -> Path:
    """Folder of `lab:almanac-tiny-gold`, which never saw the forget split."""
    from demur.lab import model_path

    return model_path("almanac-tiny-gold", progress=False)
