from __future__ import annotations

import json

import pytest
import typer
from typer.testing import CliRunner

from demur.cli.papers import papers as command
from demur.errors import UsageError

app = typer.Typer()
app.command()(command)


def run(*arguments: str, width: int = 80) -> str:
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": str(width), "TERM": "dumb"}, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_json_holds_every_field_of_every_paper():
    records = json.loads(run("--json"))
    assert len(records) == 67
    npo = next(record for record in records if record["slug"] == "npo")
    assert npo["arxiv"] == "2404.05868" and npo["status"] == "built" and "objective:npo" in npo["entry_points"]


def test_the_table_fits_80_columns_and_names_every_paper():
    output = run()
    assert max(map(len, output.splitlines())) <= 80
    assert "67 of 67 papers" in output


def test_filters_combine():
    slugs = [record["slug"] for record in json.loads(run("unlearning", "--room", "objectives", "--json"))]
    assert "npo" in slugs and "ssd" not in slugs
    built, planned = ({r["slug"] for r in json.loads(run("--status", s, "--json"))} for s in ("built", "planned"))
    assert "npo" in built and "t2ue" in planned
    assert not built & planned and len(built | planned) == 67


def test_no_match_is_an_empty_list():
    assert json.loads(run("zzzz", "--json")) == []
    assert "0 of 67 papers" in run("zzzz")


@pytest.mark.parametrize("arguments", [("--status", "build"), ("--room", "objective")])
def test_an_unknown_filter_suggests_the_nearest(arguments: tuple[str, str]):
    with pytest.raises(UsageError, match=r"did you mean (built|objectives)"):
        CliRunner().invoke(app, arguments, catch_exceptions=False)
