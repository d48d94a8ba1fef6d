from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cli.command import demur
from demur.reports import describe
from demur.runs import RunFolder
from demur.training.continual import PrototypeRelationDistillation, small_encoder, small_projection

WORDS = ["continual", "--data", "digits:train[0:200]", "--test", "digits:test[0:100]", "--seed", 1]
FAST = ["--option", "epochs=1", "--option", "first_epochs=2"]


def test_a_stream_is_learned_measured_and_kept(tmp_path: Path) -> None:
    out = tmp_path / "prd"
    words = [*WORDS, "--tasks", "0,1/2,3", *FAST, "--out", out]
    done = demur(*words)
    assert done.code == 0, done.err
    assert "after task 1: " in done.out and "forgetting" in done.out
    run = RunFolder.open(out)
    results = run.results().set_index("metric")
    assert len(results) == 5 + 3
    last = [results.loc[f"accuracy:task {task} after 1", "value"] for task in (0, 1)]
    assert results.loc["accuracy", "value"] == pytest.approx(sum(last) / 2)
    row = results.loc["accuracy:task 0 after 0"]
    assert row["low"] <= row["value"] <= row["high"] and row["n"] > 5
    for metric, better in zip(results.index, results["better"], strict=True):
        told = describe(f"continual/{metric}")
        assert told.definition and told.better == better, metric
    assert demur("report", out, "--out", tmp_path / "page.html").code == 0
    assert "Task after task" in (tmp_path / "page.html").read_text(encoding="utf-8")
    back = PrototypeRelationDistillation(small_encoder(), small_projection()).restore(run.model_path)
    assert back.tasks == [[0, 1], [2, 3]]
    written = (out / "state.json").read_text()
    assert demur(*words).code == 0 and (out / "state.json").read_text() == written


def test_it_goes_on_from_a_classifier_s_features(tmp_path: Path) -> None:
    done = demur(*WORDS, "lab:digits-resnet", "--tasks", "0,1/2,3", *FAST, "--out", tmp_path / "on")
    assert done.code == 0, done.err
    results = RunFolder.open(tmp_path / "on").results().set_index("metric")
    assert results.loc["accuracy:task 0 after 0", "value"] > 0.9


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--tasks", "0,1/1,2"], "class '1' stands there twice"),
        (["--tasks", "0,1/11"], "has no class '11'"),
        (["--tasks", "0,1", "--option", "epoch=1"], "no option 'epoch'"),
        (["--tasks", "0,1", "--option", "epochs=half"], "option epochs is a whole number of at least 0, not 'half'"),
        (["--tasks", "0,1", "--option", "teacher_mode=half"], "teacher_mode train or eval"),
        (["--tasks", "0,1", "--test", "digits:test[0:1]"], "lacks rows of a class of task 0"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(words: list[Any], said: str, tmp_path: Path) -> None:
    done = demur(*WORDS, *words, "--out", tmp_path / "no")
    assert done.code == 2 and said in done.sentence
    assert not (tmp_path / "no").exists()


def test_tables_have_no_views(tmp_path: Path) -> None:
    import numpy as np

    np.savez(tmp_path / "flat.npz", x=np.zeros((4, 3), np.float32), y=np.array([0, 1, 0, 1]))
    source = str(tmp_path / "flat.npz")
    done = demur("continual", "--data", source, "--test", source, "--tasks", "0,1", "--out", tmp_path / "no")
    assert done.code == 2 and "holds no pictures" in done.sentence
