"""Objectives and their options as a person gives them to `demur forget` and `demur data alternates`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.command import Outcome, demur
from tiny import save_tiny


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    save_tiny(folder / "model")
    for name, start in (("forget", 0), ("retain", 4)):
        rows = [{"question": f"who wrote lamp {i}?", "answer": f"oda {i}."} for i in range(start, start + 4)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEMUR_CACHE", str(tmp_path / "cache"))


def run(world: Path, out: Path, *more: Any) -> Outcome:
    rows = ["--forget", world / "forget.jsonl", "--retain", world / "retain.jsonl"]
    return demur("forget", world / "model", *rows, "--out", out, "--epochs", 1, "--no-trajectory", *more)


def test_alternates_are_made_and_then_used(world: Path, tmp_path: Path) -> None:
    file = tmp_path / "alternates.jsonl"
    words = ["data", "alternates", world / "model", "--forget", world / "forget.jsonl", "--out", file]
    made = demur(*words, "--n", 2, "--seed", 3, "--instruction", "{question}", "--max-new-tokens", 4)
    assert made.code == 0 and made.out == f"{file}: 4 rows with 2 other answers each\n"
    assert all(len(json.loads(line)["alternates"]) == 2 for line in file.read_text().splitlines())
    assert "exists: choose another --out" in demur(*words).sentence
    done = run(world, tmp_path / "run", "--objective", "altpo", "--forget", file)
    assert done.code == 0, done.err
    assert not (tmp_path / "run" / "alternates.jsonl").exists()


def test_layer_and_trainable_reach_the_run(world: Path, tmp_path: Path) -> None:
    words = ["--objective", "rmu", "--option", "layer=-1", "--trainable", "layers.1.mlp.down_proj"]
    done = run(world, tmp_path / "run", *words)
    assert done.code == 0, done.err
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert config["objective_options"] == {"layer": -1} and config["trainable"] == "layers.1.mlp.down_proj"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--objective", "pdu"], r"pass --retain-limit, a bit above the "),
        (["--objective", "pdu", "--retain-limit", 1], "moves only after 5 epochs, and the run has 1"),
        (["--objective", "pdu", "--retain-limit", -1], "'retain_limit': Input should be greater than 0"),
        (["--objective", "rmu"], "layer 7 does not exist: the model has 2 layers, 0 to 1; pass --option layer=NUMBER"),
        (["--trainable", "nowhere"], "--trainable 'nowhere' matches none of the"),
        (["--objective", "altpo", "--alternates", "x.txt"], "leave --alternates out"),
        (["--objective", "undial", "--reference", "adapter"], "pass --lora RANK"),
    ],
)
def test_a_missing_ingredient_is_one_sentence(words: list[Any], message: str, world: Path, tmp_path: Path) -> None:
    outcome = run(world, tmp_path / "run", *words)
    assert outcome.code == 2 and message in outcome.sentence
    assert not (tmp_path / "run").exists()


def test_objectives_say_what_they_claim_and_what_they_act_on() -> None:
    listed = " ".join(demur("objectives").out.split())
    assert "claims: suppression; acts on: representation; options: layer=7" in listed
    assert "claims: removal; acts on: logits; options: beta=10.0" in listed
