"""`demur probe` through the real entry point."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cli.command import demur
from demur.data import read_rows
from demur.models import load_model
from demur.probes import ches_scores
from tiny import save_tiny

ROWS = [
    {"id": f"r{i}", "prompt": "who wrote the lamp?", "chosen": chosen, "rejected": rejected}
    for i, (chosen, rejected) in enumerate(
        [
            ("oda marsh", "oda marsh born"),
            ("in kell", "the town of kell"),
            ("oda", "she was born in the town"),
            ("q", "n"),
        ]
    )
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture()
def pairs(tmp_path: Path) -> Path:
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return file


def written(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_writes_every_pair_with_its_score_or_the_lowest_of_them(model: Path, pairs: Path, tmp_path: Path) -> None:
    done = demur("probe", "ches", model, "--data", pairs, "--out", tmp_path / "all.jsonl")
    assert done.code == 0 and "4 of 4 pairs" in done.out
    rows = written(tmp_path / "all.jsonl")
    expected = ches_scores(load_model(model), read_rows(pairs))
    np.testing.assert_allclose([row["ches"] for row in rows], expected, rtol=1e-5, atol=1e-5)
    assert [{k: v for k, v in row.items() if k != "ches"} for row in rows] == ROWS

    # What was written can be scored again; the old column gives way.
    half = demur(
        "probe", "ches", model, "--data", tmp_path / "all.jsonl", "--keep", 0.5, "--out", tmp_path / "half.jsonl"
    )
    assert "2 of 4 pairs" in half.out
    assert {row["id"] for row in written(tmp_path / "half.jsonl")} == {f"r{i}" for i in np.argsort(expected)[:2]}
    for keep, count in (("3", 3), ("0.25:0.75", 2)):
        demur("probe", "ches", model, "--data", pairs, "--keep", keep, "--out", tmp_path / f"{count}-{keep[0]}.jsonl")
        assert len(written(tmp_path / f"{count}-{keep[0]}.jsonl")) == count


@pytest.mark.parametrize(
    ("keep", "sentence"), [("2.5", "a share of 2.5"), ("some", "write a share"), ("0.9:0.1", "between the quantiles")]
)
def test_a_keep_that_cannot_be_is_refused_and_nothing_written(
    keep: str, sentence: str, model: Path, pairs: Path, tmp_path: Path
) -> None:
    done = demur("probe", "ches", model, "--data", pairs, "--keep", keep, "--out", tmp_path / "out.jsonl")
    assert done.code == 2 and sentence in done.sentence and not (tmp_path / "out.jsonl").exists()


def test_a_row_without_a_rejected_answer_is_named_by_file_and_line(model: Path, pairs: Path, tmp_path: Path) -> None:
    pairs.write_text(json.dumps(ROWS[0]) + "\n" + json.dumps({"prompt": "who?", "chosen": "oda"}) + "\n")
    done = demur("probe", "ches", model, "--data", pairs, "--out", tmp_path / "out.jsonl")
    assert done.code == 2 and "line 2" in done.sentence and "rejected" in done.sentence


def test_displacement_tells_both_answers_with_intervals(model: Path, pairs: Path, tmp_path: Path) -> None:
    words = ["--data", pairs, "--objective", "dpo", "--epochs", 3, "--learning-rate", 1e-2, "--batch-size", 4]
    assert demur("train", model, *words, "--out", tmp_path / "run").code == 0
    told = demur("probe", "displacement", tmp_path / "run", "--before", model, "--data", pairs)
    assert told.code == 0
    for part in (
        "change of log π(chosen):",
        "change of log π(rejected): -",
        "displaced:",
        "n 4",
        "rising first tokens:",
    ):
        assert part in told.out
    same = demur("probe", "displacement", model, "--before", model, "--data", pairs)
    assert "change of log π(chosen): +0.000 [+0.000, +0.000], n 4" in same.out and "rising" not in same.out
