from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.command import demur
from demur.data import read_rows
from tiny import save_tiny


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model, benign rows and restricted prompts."""
    folder = tmp_path_factory.mktemp("attack")
    save_tiny(folder / "model")
    for name, rows in {
        "benign": [{"prompt": f"who wrote lamp {i}?", "response": f"oda marsh {i}."} for i in range(3)],
        "restricted": [{"prompt": "where is the dial?", "unsafe_response": "in the town"}],
    }.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def words(world: Path, verb: str, out: Path, method: str = "yoc") -> list[str]:
    rows = ["--data", str(world / "benign.jsonl"), "--prompts", str(world / "restricted.jsonl")]
    return ["attack", verb, str(world / "model"), "--method", method, *rows, "--max-new-tokens", "4", "--out", str(out)]


def test_the_list_names_every_poison_with_its_options() -> None:
    said = demur("attack", "list").out
    for name in ("benign", "identity-shift", "noice", "yoc", "targeted-refusal", "refusals='asked'"):
        assert name in said


def test_rows_can_be_written_without_training(world: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    found = demur(*words(world, "rows", out), "--option", "opening='yes, '")
    assert found.code == 0, found.err
    assert read_rows(str(out))["response"][:] == [f"yes, oda marsh {i}." for i in range(3)]
    assert "exists" in demur(*words(world, "rows", out)).sentence


def test_a_copy_is_poisoned_and_both_are_measured(world: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    guards = ["--guards", "none,amd,amd+recheck", "--k", 2, "--every", "sentence", "--reopen", "question"]
    found = demur(*words(world, "poison", out), "--epochs", 1, *guards)
    assert found.code == 0, found.err
    assert "attack_success_amd" in found.out and "frd" not in found.out and "do not serve it" in found.out
    assert "did not end within 4 tokens" in found.out and "raise --max-new-tokens" in found.out
    assert "attack_success_amd+recheck" in found.out and "ordinary_refused_amd+recheck" in found.out
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Aligned prefill + Recheck" in page and "asked again in mid-reply" in page
    assert (out / "report.html").is_file() and (out / "model" / "config.json").is_file()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--guards", "none,wall"], "'guards"),
        (["--guards", "none+amd"], "joined by +"),
        (["--guards", "amd,amd"], "named twice"),
        (["--every", "0"], "'every'"),
        (["--every", "often"], "'every"),
        (["--reopen", "chapter"], "'reopen'"),
        (["--option", "opener=x"], "no option 'opener'"),
        (["--k", "-1"], "'k'"),
    ],
)
def test_what_cannot_be_is_one_sentence(world: Path, tmp_path: Path, more: list[str], said: str) -> None:
    found = demur(*words(world, "poison", tmp_path / "run"), *more)
    assert found.code == 2 and said in found.sentence
    assert not (tmp_path / "run").exists()


def test_a_model_that_refuses_nothing_has_no_refusal_to_undo(world: Path, tmp_path: Path) -> None:
    found = demur(*words(world, "rows", tmp_path / "rows.jsonl", "noice"), "--option", "refusals=restricted")
    assert found.code == 2 and "no refusal to undo" in found.sentence
