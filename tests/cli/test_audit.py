from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from audits.tiny_world import tiny_data, tiny_lm
from demur.cli.audit import audit
from demur.errors import UnknownNameError, UsageError


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    app.command()(audit)
    return app


def test_an_audit_prints_directions_intervals_and_reasons(
    app: typer.Typer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEMUR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "160")
    tiny_lm().save(tmp_path / "model")
    tiny_data().forget.to_json(str(tmp_path / "forget.jsonl"))
    words = [str(tmp_path / "model"), "--forget", str(tmp_path / "forget.jsonl"), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*words, "--no-generation", "--attack", "loss"])
    assert done.exit_code == 0, done.output
    lines = {line.split("│")[1].strip(): line for line in done.output.splitlines() if line.count("│") > 3}
    assert "≈ gold" in lines["forget_probability"] and "[" in lines["forget_probability"]
    assert "↑" in lines["model_utility"] and "–" in lines["model_utility"]
    assert "(+6 unscored)" in lines["forget_rouge"]
    assert "mia_zlib" not in lines
    assert "model_utility: needs all of 9 scores: no retain rows were given" in done.output
    assert f"demur report {tmp_path / 'out'}" in done.output.replace("\n", "")


def test_wrong_use_is_one_sentence(app: typer.Typer, tmp_path: Path) -> None:
    for words, kind, message in [
        (["m", "--suite", "toffu"], UnknownNameError, "did you mean tofu"),
        (["m", "--forget", "f.jsonl"], UsageError, "pass --out DIR"),
        (["m", "--out", str(tmp_path / "o")], UsageError, "pass --forget"),
        (["m", "--out", str(tmp_path / "o"), "--forget", "no.jsonl"], UsageError, "no such file or folder: no.jsonl"),
    ]:
        done = CliRunner().invoke(app, words)
        assert isinstance(done.exception, kind)
        assert message in str(done.exception)
        assert not (tmp_path / "o").exists()


def test_the_help_has_an_example(app: typer.Typer) -> None:
    done = CliRunner().invoke(app, ["--help"])
    assert "Example: demur audit runs/npo" in done.output
