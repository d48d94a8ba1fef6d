from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from demur.cli.studies import app
from demur.errors import UnknownNameError, UsageError

Toy = Callable[..., str]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "80", "TERM": "dumb"}, catch_exceptions=False)


def test_a_study_that_holds_exits_with_0_and_shows_claims_seeds_and_baselines(toy: Toy):
    result = run("run", toy(), "--seeds", "1-2,4")
    assert result.exit_code == 0
    assert "holds" in result.stdout and "seeds 1, 2, 4" in result.stdout and "seed: 1–4" in result.stdout
    assert "1 2 4" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_a_study_that_does_not_hold_exits_with_1(toy: Toy):
    result = run("run", toy(threshold="> 1"), "--seeds", "1")
    assert result.exit_code == 1 and "does not hold" in result.stdout


def test_a_study_that_is_not_measured_exits_with_1_and_says_why(toy: Toy):
    result = run("run", toy(body="raise NotMeasured('the data set is absent')"), "--seeds", "1")
    assert result.exit_code == 1
    assert "not measured: the data set is absent" in " ".join(result.stdout.split())


def test_one_of_several_studies_that_fails_is_enough(toy: Toy, tmp_path: Path):
    good, bad = toy(), toy(body="raise ValueError('no')")
    folder = tmp_path / "results"
    folder.mkdir()
    assert run("run", good, bad, "--seeds", "1", "--json", str(folder)).exit_code == 1
    verdicts = {file.stem: json.loads(file.read_text())["verdict"] for file in folder.glob("*.json")}
    assert verdicts == {good: "holds", bad: "failed"}


def test_json_goes_to_a_file_or_to_stdout(toy: Toy, tmp_path: Path):
    slug = toy()
    file = tmp_path / "deep" / "result.json"
    assert run("run", slug, "--seeds", "1,3", "--json", str(file)).exit_code == 0
    stored = json.loads(file.read_text())
    assert json.loads(run("run", slug, "--seeds", "1,3", "--json", "-").stdout) == [stored]
    claim = stored["parts"][0]["claims"][0]
    assert claim["measured"] == {"1": 1.0, "3": 3.0} and claim["threshold"] == ">= 1" and claim["holds"] is True


def test_stored_results_make_the_page(toy: Toy, tmp_path: Path):
    slug, page = toy(), tmp_path / "page.md"
    run("run", slug, "--seeds", "2", "--json", str(tmp_path / "results") + "/")
    assert run("report", "--results", str(tmp_path / "results"), "--out", str(page)).exit_code == 0
    assert f"## {slug}" in page.read_text()


def test_the_list_names_studies_and_parts(toy: Toy):
    slug = toy()
    rows = json.loads(run("list", "--json").stdout)
    assert {"study": slug, "part": "first", "seeds": [1, 2, 3]}.items() <= next(
        r for r in rows if r["study"] == slug
    ).items()
    output = run("list").stdout
    assert "npo" in output and max(map(len, output.splitlines())) <= 80


def test_an_unknown_study_suggests_the_nearest_and_is_a_usage_error():
    with pytest.raises(UnknownNameError, match="did you mean npo") as caught:
        run("run", "nop")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("seeds", ["", "a", "1,,2", "3-1", "1-b", "-1"])
def test_seeds_that_cannot_be_read_are_refused(seeds: str):
    with pytest.raises(UsageError, match="--seeds"):
        run("run", "npo", f"--seeds={seeds}")


def test_several_studies_need_a_folder_for_their_json(toy: Toy, tmp_path: Path):
    with pytest.raises(UsageError, match="need a folder"):
        run("run", toy(), toy(), "--json", str(tmp_path / "one.json"))
