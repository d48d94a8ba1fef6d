from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.command import demur
from demur.data import read_rows
from tiny import save_tiny


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    save_tiny(folder / "model")
    rows = [
        {"prompt": f"who wrote lamp {i}?", "response": "lamp.", "label": "refuse", "unsafe_response": f"oda {i}."}
        for i in range(4)
    ]
    (folder / "plain.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEMUR_CACHE", str(tmp_path / "cache"))


def test_teaching_ends_in_a_run_folder_and_repeats_from_its_own_recipe(world: Path, tmp_path: Path) -> None:
    words = ["--method", "dpo", "--option", "beta=0.3", "--epochs", 1, "--learning-rate", 1e-3]
    first = demur("refuse", world / "model", "--data", world / "plain.jsonl", *words, "--out", tmp_path / "a")
    assert first.code == 0 and "trained; measure it with" in first.out, first.err
    again = demur("refuse", "--recipe", tmp_path / "a" / "config.yaml", "--out", tmp_path / "b")
    assert again.code == 0, again.err
    states = [json.loads((tmp_path / name / "state.json").read_text()) for name in "ab"]
    assert states[0]["hashes"] == states[1]["hashes"]


def test_every_preference_run_says_how_likely_both_answers_are(world: Path, tmp_path: Path) -> None:
    words = ["--method", "dpo", "--epochs", 1, "--learning-rate", 1e-3, "--out", tmp_path / "run"]
    assert demur("refuse", world / "model", "--data", world / "plain.jsonl", *words).code == 0
    lines = (tmp_path / "run" / "stages" / "1-dpo" / "events.jsonl").read_text().splitlines()
    steps = [e for e in map(json.loads, lines) if "loss" in e]
    assert steps and all(e["chosen_logps"] < 0 and e["rejected_logps"] < 0 for e in steps)


def test_rows_can_be_written_without_training(world: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows"
    made = demur("data", "build", "redi", "--data", world / "plain.jsonl", "--out", out)
    assert made.code == 0, made.err
    assert "4 rows for objective sft" in made.out and "4 rows for objective redi" in made.out
    assert read_rows(str(out / "2-redi.jsonl"))["rejected"][:2] == ["oda 0.", "oda 1."]


def test_the_list_names_every_method_with_what_it_needs() -> None:
    listed = demur("data", "build", "--list")
    from demur.training.refusal import refusal_methods

    assert listed.code == 0
    for name in refusal_methods.names():
        assert f"\n{name} (arXiv" in f"\n{listed.out}"


def test_rows_that_cannot_be_built_are_a_sentence(world: Path, tmp_path: Path) -> None:
    wrong = demur("data", "build", "dpooo", "--data", world / "plain.jsonl", "--out", tmp_path / "x.jsonl")
    assert wrong.code == 2 and "unknown refusal method 'dpooo'" in wrong.sentence
    assert "pass METHOD" in demur("data", "build", "dpo").sentence
    assert not (tmp_path / "x.jsonl").exists()
