"""Runs commands the way a person does, and keeps what they leave on the screen."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from demur.cli import main

MODEL = "lab:almanac-tiny"
GOLD = "lab:almanac-tiny-gold"
FORGET, RETAIN = f"{MODEL}:forget", f"{MODEL}:retain"


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """What was wrong: the one line that standard error holds."""
        lines = self.err.strip().splitlines()
        assert len(lines) == 1 and lines[0].startswith("demur: "), self.err
        return lines[0].removeprefix("demur: ")


def demur(*words: Any) -> Outcome:
    """Run a command in this process, through its entry point."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setenv("COLUMNS", "120")
        with pytest.raises(SystemExit) as end:
            main([str(word) for word in words])
    return Outcome(int(end.value.code or 0), out.getvalue(), err.getvalue())


def start(*words: Any) -> subprocess.Popen[str]:
    """Start a command in a process of its own."""
    command = [sys.executable, "-m", "demur", *(str(word) for word in words)]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a suite in the background ignores Ctrl-C
    )


def forget_words(out: Path, *more: Any) -> list[Any]:
    """A short run on the small lab model; of an option that is given twice the later counts."""
    rows = ["--forget", FORGET, "--retain", RETAIN]
    return ["forget", MODEL, *rows, "--out", out, "--epochs", 1, "--learning-rate", 1e-3, *more]
