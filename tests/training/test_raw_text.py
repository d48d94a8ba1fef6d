from __future__ import annotations

from pathlib import Path

import pytest

from audits.muse_world import FORGET, HOLDOUT, RETAIN, texts
from cli.command import demur
from demur.data import write_muse
from demur.runs import RunFolder
from tiny import save_tiny


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_muse(tmp_path / "corpus", texts(FORGET, "f"), texts(RETAIN, "r"), texts(HOLDOUT, "h"))


@pytest.mark.parametrize("length", [16, 0])
def test_texts_of_a_corpus_are_forgotten(corpus: Path, tmp_path: Path, length: int) -> None:
    sets = [word for name in ("forget", "retain1") for word in (f"--{name[:6]}", f"muse:{corpus}:raw:{name}")]
    done = demur(
        *("forget", save_tiny(tmp_path / "base"), *sets, "--epochs", 2, "--learning-rate", 5e-3),
        *("--chunk-length", length, "--save-steps", 1000, "--out", tmp_path / "run"),
    )
    assert done.code == 0, done.err
    run = RunFolder(tmp_path / "run")
    table = run.results()
    forget = table[table["metric"] == "forget_probability"].set_index("epoch")
    assert forget["value"][2] < forget["value"][0]
    assert forget["n"][0] == (4 if length == 0 else pytest.approx(20, abs=15))
    assert run.config["chunk_length"] == length


def test_a_text_that_is_also_kept_is_refused(corpus: Path, tmp_path: Path) -> None:
    source = f"muse:{corpus}:raw:forget"
    done = demur(
        "forget", save_tiny(tmp_path / "base"), "--forget", source, "--retain", source, "--out", tmp_path / "r"
    )
    assert done.code == 2 and "4 of 4 forget rows are also retain rows: id f-0 (retain f-0)" in done.sentence


def test_texts_have_no_question_to_answer_otherwise(corpus: Path, tmp_path: Path) -> None:
    source = f"muse:{corpus}:raw:forget"
    words = ("--objective", "idkdpo", "--retain", f"muse:{corpus}:raw:retain1", "--out", tmp_path / "r")
    done = demur("forget", save_tiny(tmp_path / "base"), "--forget", source, *words)
    assert done.code == 2 and "no column 'question'" in done.sentence
