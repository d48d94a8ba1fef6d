from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cli.command import FORGET, GOLD, MODEL, RETAIN, demur
from demur.runs import RunFolder
from demur.sweeps import run
from sweeps.conftest import _here

ROWS = ("--forget", FORGET, "--retain", RETAIN)


def sweep_words(out: Path, *more: Any) -> list[Any]:
    fixed = ["--set", "epochs=1", "--set", "schedule=constant", "--reference", GOLD]
    return ["sweep", MODEL, *ROWS, "--out", out, *fixed, *more]


def test_a_sweep_prints_the_front_and_the_recipe_it_writes_repeats_the_run(
    tiny_model: Path, tiny_gold: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "run_processes", _here)
    out = tmp_path / "sweep"
    done = demur(*sweep_words(out, "--objectives", "npo", "--grid", "npo.beta=0.1,1", "--no-attack", "--jobs", 1))
    assert done.code == 0, done.err
    assert "npo beta=0.1" in done.out and "2 done" in done.out and "Model utility" in done.out
    assert f"report: {out / 'report.html'}" in done.out
    shown = demur("sweep", out, "--report")
    assert shown.code == 0 and shown.out == done.out
    if (out / "recommended.yaml").exists():
        again = demur("forget", "--recipe", out / "recommended.yaml", "--out", tmp_path / "again", "--no-trajectory")
        assert again.code == 0, again.err
        weights = {RunFolder(path).state["hashes"]["weights"]["after"] for path in out.glob("trials/*/")}
        assert RunFolder(tmp_path / "again").state["hashes"]["weights"]["after"] in weights


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--objectives", "npoo"], "did you mean npo"),
        (["--objectives", "npo", "--grid", "npo.betta=1"], "did you mean beta"),
        (["--objectives", "npo", "--grid", "learning_rate="], "is not NAME=VALUE,VALUE"),
        (["--objectives", "npo", "--grid", "device=cpu,cuda"], "cannot be swept"),
        (["--objectives", "npo", "--set", "epochs=0"], "setting 'epochs'"),
        (["--objectives", "npo", "--budget", "1x"], "write for instance 90m or 2h"),
        (["--objectives", "npo", "--seeds", "a"], "write whole numbers"),
        (["--objectives", "npo", "--suite", "toffu"], "did you mean tofu"),
        ([], "'objectives'"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(more: list[str], message: str, tmp_path: Path) -> None:
    done = demur(*sweep_words(tmp_path / "sweep", *more))
    assert done.code == 2 and message in done.sentence
    assert not (tmp_path / "sweep").exists()


def test_folder_and_recipe_are_asked_for(tmp_path: Path) -> None:
    assert "pass --out FOLDER" in demur("sweep", MODEL, *ROWS, "--objectives", "npo").sentence
    assert "is not a sweep's folder" in demur("sweep", tmp_path, "--report").sentence
    assert "cannot read" in demur("sweep", tmp_path / "no.yaml", "--out", tmp_path / "s").sentence
