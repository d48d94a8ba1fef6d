from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from demur.cli import main

MODEL = "lab:almanac-tiny"
FORGET, RETAIN = f"{MODEL}:forget", f"{MODEL}:retain"


@dataclass(frozen=True)
class Outcome:
    """What a command left behind on the screen."""

    code: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """The one line on standard error that says what was wrong."""
        lines = self.err.strip().splitlines()
        assert len(lines) == 1 and lines[0].startswith("demur: "), self.err
        return lines[0].removeprefix("demur: ")


def demur(*words: Any) -> Outcome:
    """Run a command in this process, as its entry point would."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    return Outcome(int(end.value.code or 0), out.getvalue(), err.getvalue())


def start(*words: Any, **options: Any) -> subprocess.Popen[str]:
    """Start the installed command in a process of its own."""
    command = [sys.executable, "-m", "demur", *(str(word) for word in words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, **options
    )


def forget(out: Path, *more: Any) -> Outcome:
    """A short run on the small lab model; what is given later counts."""
    words = ["forget", MODEL, "--forget", FORGET, "--retain", RETAIN, "--out", out, "--epochs", 1, "--no-trajectory"]
    return demur(*words, *more)


@pytest.fixture(autouse=True)
def _plain_screen(tiny_model: Path, tiny_gold: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Both lab models are built, and nothing that `main` sets in the environment outlives the test."""
    monkeypatch.setenv("COLUMNS", "100")
    for name in ("TRANSFORMERS_VERBOSITY", "HF_HUB_DISABLE_PROGRESS_BARS", "TOKENIZERS_PARALLELISM"):
        monkeypatch.setenv(name, os.environ.get(name, {"TRANSFORMERS_VERBOSITY": "error"}.get(name, "1")))
    yield
