from __future__ import annotations

from pathlib import Path

import pytest

from demur import UsageError
from demur.runs import Result, RunFolder


def result(**changes: object) -> Result:
    base = {"run": "a", "suite": "tofu", "metric": "m", "value": 0.5, "low": 0.4, "high": 0.6, "n": 9}
    return Result(**{**base, **changes})


def test_results_keep_every_column_and_replace_only_their_own_kind(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "a", {"x": 1})
    run.add_results([result(), result(role="before", value=None, low=None, high=None, unscored=3), result(epoch=1.0)])
    run.add_results([result(value=0.7)])
    table = run.results()
    assert len(table) == 3
    assert table[(table["role"] == "run") & table["epoch"].isna()]["value"].tolist() == [0.7]
    before = table[table["role"] == "before"].iloc[0]
    assert before["unscored"] == 3 and before["value"] != before["value"]


def test_folder_of_other_settings_is_not_taken_over(tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "a", {"x": 1, "y": None})
    assert RunFolder.create(tmp_path / "a", {"x": 1, "y": None}).config == {"x": 1, "y": None}
    with pytest.raises(UsageError, match=r"other settings \(y\)"):
        RunFolder.create(tmp_path / "a", {"x": 1, "y": 2})


def test_folder_that_is_no_run_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(UsageError, match="is no run folder"):
        RunFolder.create(tmp_path, {})
    with pytest.raises(UsageError, match=r"it has no config\.yaml"):
        RunFolder.open(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["precious.txt"]


def test_event_cut_short_by_a_crash_is_passed_over(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "a", {})
    run.log("start", seed=1)
    with (run.path / "events.jsonl").open("a") as file:
        file.write('{"event": "ste')
    assert [e["event"] for e in run.events()] == ["start"]


def test_state_is_merged(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "a", {})
    assert run.state == {}
    run.update_state(status="running", seed=1)
    run.update_state(status="complete")
    assert run.state == {"status": "complete", "seed": 1}
