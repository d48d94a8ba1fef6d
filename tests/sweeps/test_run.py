from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from demur.errors import UsageError
from demur.processes import Event
from demur.runs import RunFolder
from demur.sweeps import Sweep, SweepSettings, read_sweep, run, run_sweep, trial

Make = Callable[..., SweepSettings]


def told(events: list[Event], kind: str) -> list[str]:
    """The trials that an event of this kind was about, in order."""
    return [event.task.label for event in events if event.kind == kind and event.task.label != "controls"]


def comparable(sweep: Sweep) -> pd.DataFrame:
    return sweep.trials.drop(columns="seconds")


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, recipe: dict[str, Any]) -> tuple[Sweep, list[Event]]:
    """A whole sweep, run once in this process."""
    from sweeps.conftest import _here

    events: list[Event] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "run_processes", _here)
        folder = tmp_path_factory.mktemp("swept") / "sweep"
        return run_sweep(SweepSettings.make(**recipe), folder, watch=events.append), events


def test_every_trial_is_a_run_folder_named_by_its_settings(swept: tuple[Sweep, list[Event]]) -> None:
    sweep, _ = swept
    assert list(sweep.trials["status"]) == ["done"] * 8
    for row in sweep.trials.to_dict("records"):
        folder = RunFolder.open(sweep.folder / "trials" / row["trial"])
        config = folder.config
        assert (config["objective"], config["learning_rate"], config["seed"]) == (
            row["objective"],
            row["learning_rate"],
            row["seed"],
        )
        assert (folder.path / "report.html").is_file()
    assert not list((sweep.folder / "trials").glob("*.work"))


def test_the_table_says_what_the_run_folders_say(swept: tuple[Sweep, list[Event]]) -> None:
    sweep, _ = swept
    row = sweep.trials.iloc[5]
    found = RunFolder(sweep.folder / "trials" / row["trial"]).results()
    found = found[found["role"] == "run"].set_index("metric")["value"]
    assert row["forgetting"] == found["forget_probability"]
    assert row["utility"] == found["model_utility"]
    control = pd.read_json(sweep.folder / "trials" / "controls.json", typ="series")
    recovery = (found["relearned_probability"] - control["reference"]) / (control["before"] - control["reference"])
    assert row["resistance"] == pytest.approx(recovery)
    for name, table in (("trials", sweep.trials), ("configurations", None)):
        stored = pd.read_parquet(sweep.folder / f"{name}.parquet")
        assert len(stored) == (8 if table is not None else 4)
        assert list(pd.read_csv(sweep.folder / f"{name}.csv").columns) == list(stored.columns)


def test_first_seeds_come_first_and_then_those_of_the_front(swept: tuple[Sweep, list[Event]]) -> None:
    sweep, events = swept
    order = told(events, "started")
    assert [label.rpartition(" ")[2] for label in order] == ["1"] * 4 + ["2"] * 4
    front = {p.configuration.label for p in read_sweep(sweep.folder, seeds=1).front}
    second = [label.removesuffix(" seed 2") for label in order[4:]]
    assert set(second[: len(front)]) == front


def test_the_cheapest_come_first(make: Make, here: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _instant(monkeypatch)
    events: list[Event] = []
    settings = make(grid={"epochs": [9, 1, 4]}, objectives=["npo"], seeds=[1])
    run_sweep(settings, tmp_path / "s", watch=events.append)
    assert told(events, "started") == ["npo epochs=1 seed 1", "npo epochs=4 seed 1", "npo epochs=9 seed 1"]


def test_finished_trials_are_not_repeated_and_a_larger_grid_goes_on(
    swept: tuple[Sweep, list[Event]], make: Make, here: None
) -> None:
    sweep, _ = swept
    events: list[Event] = []
    again = run_sweep(make(), sweep.folder, watch=events.append)
    assert told(events, "started") == [] and len(told(events, "found")) == 8
    pd.testing.assert_frame_equal(again.trials, sweep.trials)
    more = run_sweep(
        make(grid={"learning_rate": [1e-4, 5e-4]}, seeds=[1], max_runs=3), sweep.folder, watch=events.append
    )
    assert told(events, "started") == ["npo learning_rate=0.0005 seed 1"]
    assert sorted(more.trials["status"]) == ["done", "done", "done", "not run"]
    run_sweep(make(max_runs=8), sweep.folder)


def test_a_failed_trial_says_why_and_stops_no_other(
    make: Make, here: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _instant(monkeypatch, fails="npo learning_rate=0.001")
    sweep = run_sweep(make(seeds=[1]), tmp_path / "s")
    assert sweep.trials.set_index("setting")["status"].to_dict() == {
        "npo learning_rate=0.0001": "done",
        "npo learning_rate=0.001": "failed",
        "graddiff learning_rate=0.0001": "done",
        "graddiff learning_rate=0.001": "done",
    }
    assert sweep.trials["reason"].dropna().tolist() == ["ValueError: the rate is too high"]
    _instant(monkeypatch)
    events: list[Event] = []
    again = run_sweep(make(seeds=[1]), tmp_path / "s", watch=events.append)
    assert told(events, "started") == ["npo learning_rate=0.001 seed 1"]
    assert set(again.trials["status"]) == {"done"}


def _instant(monkeypatch: pytest.MonkeyPatch, seconds: float = 10.0, fails: str = "") -> list[str]:
    """Trials that take no time, say that they took some, and move the clock on; the clock's time at each start."""
    clock = [0.0]

    class Clock:
        @staticmethod
        def monotonic() -> float:
            return clock[0]

        perf_counter = monotonic

    def instant(self: Any, progress: Any) -> tuple[str, str]:
        if isinstance(self, trial.Controls):
            return "done", ""
        if fails and self.label.startswith(fails):
            raise ValueError("the rate is too high")
        RunFolder.create(self.folder, {"command": "forget"})
        clock[0] += seconds * self.cost
        self.write_record("done", seconds=seconds * self.cost)
        return "done", ""

    monkeypatch.setattr(run, "time", Clock)
    monkeypatch.setattr(trial.Trial, "run", instant)
    monkeypatch.setattr(trial.Controls, "run", instant)
    return clock


@pytest.mark.parametrize(("budget", "done"), [("9s", 0), ("45s", 4), ("50s", 5), ("1h", 8)])
def test_no_trial_is_started_that_would_not_end_within_the_budget(
    budget: str, done: int, make: Make, here: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _instant(monkeypatch)
    monkeypatch.setattr(run, "shortest", lambda settings: 1.0)
    sweep = run_sweep(make(budget=budget), tmp_path / "s")
    # Before the first trial nothing is known of their length, so one is tried.
    assert (sweep.trials["status"] == "done").sum() == max(1, done)


def test_a_longer_run_is_expected_to_take_longer(
    make: Make, here: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _instant(monkeypatch)
    monkeypatch.setattr(run, "shortest", lambda settings: 1.0)
    settings = make(grid={"epochs": [1, 2, 6]}, objectives=["npo"], seeds=[1, 2], budget="85s")
    sweep = run_sweep(settings, tmp_path / "s")
    assert sweep.trials.groupby("epochs")["status"].agg(list).to_dict() == {
        1: ["done", "not run"],
        2: ["done", "not run"],
        6: ["not run", "not run"],
    }, "what comes after a trial that does not fit is not started either"


def test_the_budget_is_that_of_all_commands_together(
    make: Make, here: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _instant(monkeypatch)
    monkeypatch.setattr(run, "shortest", lambda settings: 1.0)
    run_sweep(make(max_runs=3), tmp_path / "s")
    sweep = run_sweep(make(budget="55s"), tmp_path / "s")
    assert (sweep.trials["status"] == "done").sum() == 5
    with pytest.raises(UsageError, match="5 s are left, too little for one run, which takes 10 s"):
        run_sweep(make(budget="55s"), tmp_path / "s")
    with pytest.raises(UsageError, match="the budget of 20s is spent"):
        run_sweep(make(budget="20s"), tmp_path / "s")


def test_a_budget_too_small_for_one_run_is_refused_before_anything_starts(make: Make, tmp_path: Path) -> None:
    settings = make(grid={"epochs": [10_000]}, budget="1s")
    with pytest.raises(UsageError, match="too little for one run"):
        run_sweep(settings, tmp_path / "s")
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"audit": {"suite": "toffu"}}, "did you mean tofu"),
        ({"audit": {"reference": "lab:almanac-tinny"}}, "did you mean"),
        ({"settings": {"model": "lab:almanac-tiny", "forget": "no.jsonl"}, "objectives": ["npo"]}, "no.jsonl"),
    ],
)
def test_what_no_trial_could_use_is_refused_before_anything_starts(
    changes: dict[str, Any], message: str, make: Make, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        run_sweep(make(**changes), tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_a_folder_of_something_else_is_left_alone(make: Make, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="is no sweep's folder"):
        run_sweep(make(), tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(UsageError, match="jobs"):
        run_sweep(make(), tmp_path / "s", jobs=0)


def test_two_commands_do_not_work_on_one_folder(
    make: Make, here: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _instant(monkeypatch)

    def again(event: Event) -> None:
        if event.kind == "started":
            run_sweep(make(), tmp_path / "s")

    with pytest.raises(UsageError, match="another command works on"):
        run_sweep(make(), tmp_path / "s", watch=again)


def test_a_sweep_killed_under_way_ends_with_the_same_table(
    swept: tuple[Sweep, list[Event]], recipe: dict[str, Any], tmp_path: Path
) -> None:
    whole, _ = swept
    smaller = {**recipe, "objectives": ["npo"], "seeds": [1], "attack": None}
    file, out = tmp_path / "recipe.yaml", tmp_path / "sweep"
    file.write_text(yaml.safe_dump(smaller))
    command = [sys.executable, "-m", "demur", "sweep", str(file), "--out", str(out), "--jobs", "1"]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True)
    for _ in range(6000):
        if len(list(out.glob("trials/*-1/config.yaml"))) == 2 or process.poll() is not None:
            break
        time.sleep(0.05)
    assert process.poll() is None, "it ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list(read_sweep(out).trials["status"]) == ["done", "not run"], "the second trial was under way"
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    ended = comparable(read_sweep(out)).drop(columns="configuration")
    expected = comparable(whole).drop(columns=["configuration", "resistance", "relearned_probability"])
    expected = expected[(expected["objective"] == "npo") & (expected["seed"] == 1)].reset_index(drop=True)
    pd.testing.assert_frame_equal(ended, expected)
