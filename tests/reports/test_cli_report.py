from __future__ import annotations

import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from demur.cli.report import report
from demur.errors import UsageError
from reports.made_runs import AT_GOLD, REMEMBERS


def invoke(*arguments: object):
    app = typer.Typer()
    app.command()(report)
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_one_run_gets_its_report_in_its_own_folder(maker):
    folder = maker.run("npo", REMEMBERS)
    done = invoke(folder.path)
    assert done.exit_code == 0, done.output
    assert (folder.path / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert "report.html" in done.output


def test_several_runs_get_one_report_here_or_where_asked(maker, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = [maker.run("npo", REMEMBERS).path, maker.run("simnpo", AT_GOLD).path]
    assert invoke(*folders).exit_code == 0
    assert invoke(*folders, "--out", tmp_path / "deep" / "er" / "x.html").exit_code == 0
    assert (tmp_path / "report.html").is_file() and (tmp_path / "deep" / "er" / "x.html").is_file()


def test_a_folder_that_is_no_run_is_a_usage_error(tmp_path):
    assert isinstance(invoke(tmp_path).exception, UsageError)


def test_no_run_is_a_usage_error():
    assert invoke().exit_code == 2


@pytest.mark.parametrize("module", ["demur.cli.report", "demur.reports"])
def test_importing_it_imports_nothing_heavy(module):
    heavy = "{'pandas', 'jinja2', 'torch', 'matplotlib', 'yaml', 'numpy'}"
    code = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
