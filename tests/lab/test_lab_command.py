"""`demur lab` lists, builds and finds lab models."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from demur.cli.lab import app
from demur.lab import RECIPES, model_folder

run = CliRunner()


def test_list_names_every_recipe_and_whether_it_is_built(tiny_model: Path) -> None:
    records = {record["name"]: record for record in json.loads(run.invoke(app, ["list", "--json"]).output)}
    assert set(records) == set(RECIPES)
    assert records["almanac-tiny"]["built"]
    assert records["almanac-tiny"]["path"] == str(tiny_model)
    table = run.invoke(app, ["list"])
    assert table.exit_code == 0
    assert all(f"lab:{name}" in table.output for name in RECIPES)
    assert all(f"lab:{world}:SPLIT" in table.output for world in ("abacus", "almanac", "charter", "scenes-digits"))


def test_build_prints_the_folder(tiny_model: Path) -> None:
    assert run.invoke(app, ["build", "almanac-tiny"]).output.strip() == str(tiny_model)


def test_path_builds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEMUR_CACHE", str(tmp_path / "empty"))
    result = run.invoke(app, ["path", "almanac@seed=4"])
    assert Path(result.output.strip()) == model_folder("almanac@seed=4")
    assert not (tmp_path / "empty").exists()


@pytest.mark.parametrize("verb", ["list", "build", "path"])
def test_help_has_an_example(verb: str) -> None:
    assert "Example:" in run.invoke(app, [verb, "--help"]).output


def test_importing_the_command_imports_no_torch() -> None:
    code = "import sys, demur.cli.lab; print(sorted({'torch', 'transformers', 'datasets'} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
