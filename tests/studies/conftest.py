from __future__ import annotations

import importlib
import itertools
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from demur.studies import studies

TOY = '''
from __future__ import annotations

import os
import time
from pathlib import Path

from demur.studies import Claim, NotMeasured, study

LOG = Path(os.environ["TOY_LOG"])


@study("{slug}", paper="0000.00000", part="first", seeds=(1, 2, 3), minutes=0)
def first(seed, progress):
    """A toy."""
    with LOG.open("a") as file:
        file.write(f"first {{seed}} {{os.getpid()}} {{os.environ['OMP_NUM_THREADS']}}\\n")
    for step in range(3):
        progress(step, 3, "counting")
    {body}
    return {{"seed": seed, "square": seed**2}}


@first.claims
def first_claims(m):
    yield Claim(text="squares are at least as large", measured=m["square"] / m["seed"], threshold="{threshold}")
    seeds = {{"seed": m["seed"]}}
    yield Claim(text="and positive", measured=m["square"], threshold="> 0", kind="ours", baselines=seeds)


{more}
'''


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Writes and registers a toy study, importable from worker processes too; returns its slug."""
    folder = tmp_path / "modules"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("TOY_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("DEMUR_CACHE", str(tmp_path / "cache"))
    counter = itertools.count()
    made: list[str] = []

    def make(body: str = "pass", threshold: str = ">= 1", more: str = "", slug: str | None = None) -> str:
        module = f"toy_study_{next(counter)}"
        slug = slug or module.replace("_", "-")
        code = TOY.format(slug=slug, body=body, threshold=threshold, more=textwrap.dedent(more))
        (folder / f"{module}.py").write_text(code, encoding="utf-8")
        importlib.invalidate_caches()
        studies._components.pop(slug, None)
        importlib.import_module(module)
        made.extend([slug, module])
        return slug

    yield make
    for name in made:
        studies._components.pop(name, None)
        sys.modules.pop(name, None)


@pytest.fixture
def log(tmp_path: Path) -> Callable[[], list[list[str]]]:
    """What the toy studies' workers wrote: part, seed, process id, threads."""

    def read() -> list[list[str]]:
        file = tmp_path / "log"
        return [line.split() for line in file.read_text().splitlines()] if file.exists() else []

    return read


@pytest.fixture
def quick_authors(shared_data: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The studies' world of TOFU authors with few rows and one epoch: to run a study's code, not to believe it."""
    from demur.studies import authors

    monkeypatch.setenv("DEMUR_SHARED_DATA", str(shared_data("tofu").parent))
    monkeypatch.setattr(authors, "KEPT_ROWS", 8)
    for settings in (authors.LEARN, authors.SLOWLY, authors.UNLEARN):
        monkeypatch.setitem(settings, "epochs", 1)
