from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from demur.runs import Result, RunFolder
from demur.sweeps import Sweep, SweepSettings, read_sweep, recommend, write_sweep_report
from demur.sweeps.run import _write_recipe
from demur.sweeps.table import planned, write_tables
from demur.training import ForgetSettings

RATES = [1e-5, 1e-4, 1e-3, 1e-2]
# By rate: forget probability, utility and knowledge after relearning, of seeds 1 and 2.
MADE = {
    1e-5: [(0.90, 0.62, 0.95), (0.88, 0.60, 0.95)],  # keeps most, forgets least
    1e-4: [(0.20, 0.60, 0.50), (0.10, 0.58, 0.40)],  # the one to take
    1e-3: [(0.22, 0.55, 0.60), (0.26, 0.56, 0.55)],  # beaten by the last in everything
    1e-2: [(0.05, 0.30, 0.10), (0.06, 0.20, 0.12)],  # forgets, and breaks the model
}


class Links(HTMLParser):
    """Every link and every id of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        assert tag not in ("script", "img", "link"), "the page stands by itself"
        self.links += [given["href"]] if tag == "a" and given.get("href") else []
        self.ids |= {given["id"]} if given.get("id") else set()


def store(trial: Any, numbers: tuple[float, float, float]) -> None:
    """A finished trial with these numbers."""
    run = RunFolder.create(trial.folder, {"command": "forget", **trial.settings})
    gold = {"forget_probability": 0.1, "model_utility": 0.6}
    own = dict(zip((*gold, "relearned_probability"), numbers, strict=True))
    better = {"forget_probability": "reference", "model_utility": "higher", "relearned_probability": "reference"}
    rows = [("run", own), ("reference", gold), ("before", {"forget_probability": 0.95, "model_utility": 0.61})]
    run.add_results(
        Result(run.name, "tofu", metric, value, None, None, 10, role=role, better=better[metric])
        for role, values in rows
        for metric, value in values.items()
    )
    (run.path / "report.html").write_text("a run")
    trial.write_record("done", seconds=1.0)


@pytest.fixture
def swept(make: Callable[..., SweepSettings], tmp_path: Path) -> Sweep:
    """A finished sweep with made-up numbers: four rates, two seeds, and one objective whose trials failed."""
    settings = make(objectives=["npo", "simnpo"], grid={"npo.learning_rate": RATES})
    trials, controls = planned(settings, tmp_path)
    _write_recipe(settings, tmp_path)
    assert controls is not None
    controls.write_record("done", before=0.95, reference=0.05)
    for configuration, of in trials.items():
        for i, trial in enumerate(of):
            if configuration.settings.objective == "npo":
                store(trial, MADE[configuration.settings.learning_rate][i])
            else:
                trial.write_record("failed", reason="RuntimeError: <too> large")
    return read_sweep(tmp_path)


def test_measures_are_means_over_seeds_with_their_range(swept: Sweep) -> None:
    point = swept.points[1]
    forgetting, utility, resistance = (point.measures[n] for n in ("forgetting", "utility", "resistance"))
    assert (forgetting.mean, forgetting.low, forgetting.high) == (pytest.approx(0.15), 0.10, 0.20)
    assert forgetting.loss == pytest.approx((0.10 + 0.0) / 2), "the distance to gold is taken seed by seed"
    assert utility.mean == pytest.approx(0.59)
    assert resistance.mean == pytest.approx((0.45 / 0.9 + 0.35 / 0.9) / 2)


def test_front_and_dominators_are_those_of_the_means(swept: Sweep) -> None:
    assert [p.number for p in swept.front] == [1, 2, 4]
    assert swept.points[2].dominated_by == [2]


def test_the_recommended_setting_is_nearest_to_gold_of_those_that_keep_utility(swept: Sweep) -> None:
    choice, rule = recommend(swept)
    assert choice is not None and choice.number == 2
    assert rule == (
        "nearest to gold in forgetting, of the settings that no other dominates and that keep 95% of the utility of "
        "gold (0.570)"
    )


def test_without_a_setting_that_keeps_utility_none_is_recommended(swept: Sweep) -> None:
    for point in swept.points:
        for trial in point.trials:
            store(trial, (0.1, 0.2, 0.1))
    again = read_sweep(swept.folder)
    assert recommend(again)[0] is None
    assert "No setting fulfils the rule" in write_sweep_report(again).read_text()
    assert not (swept.folder / "recommended.yaml").exists()


def test_a_setting_that_lacks_a_measure_is_not_compared(swept: Sweep) -> None:
    run = RunFolder(swept.points[0].trials[0].folder)
    run.add_results([Result(run.name, "tofu", "model_utility", None, None, None, 0, better="higher")])
    point = read_sweep(swept.folder).points[0]
    assert not point.compared and not point.on_front


def test_every_point_of_the_page_opens_a_run(swept: Sweep) -> None:
    page = write_sweep_report(swept).read_text()
    found = Links(page)
    runs = [link for link in found.links if link.startswith("trials/")]
    assert len(set(runs)) == 8 and all((swept.folder / link).is_file() for link in runs)
    inside = {link for link in found.links if link.startswith("#")}
    assert {link.removeprefix("#") for link in inside} <= found.ids
    drawn = re.findall(r'<a href="#setting-(\d)"><path', page)
    assert sorted(drawn) == sorted("1234" * 3), "three plots, four settings each"
    assert "&lt;too&gt; large" in page and "beaten by 2" in page


def test_the_recipe_repeats_the_recommended_run(swept: Sweep) -> None:
    write_sweep_report(swept)
    recipe = swept.folder / "recommended.yaml"
    assert ForgetSettings.make(recipe) == swept.points[1].configuration.settings
    assert yaml.safe_load(recipe.read_text())["learning_rate"] == 1e-4


def test_tables_hold_every_trial_with_its_reason(swept: Sweep) -> None:
    write_tables(swept)
    trials = pd.read_csv(swept.folder / "trials.csv")
    assert trials["status"].tolist() == ["done"] * 8 + ["failed"] * 2
    assert trials["reason"].dropna().tolist() == ["RuntimeError: <too> large"] * 2
    settings = pd.read_parquet(swept.folder / "configurations.parquet").set_index("configuration")
    assert settings["front"].to_dict() == {1: True, 2: True, 3: False, 4: True}
    assert settings.loc[3, "dominated_by"] == "2"


def test_what_no_run_has_is_said(swept: Sweep, make: Callable[..., SweepSettings]) -> None:
    measures = {"forgetting": "forget_probabilty", "utility": "model_utility", "resistance": None}
    settings = swept.settings.model_copy(update={"measures": type(swept.settings.measures)(**measures)})
    _write_recipe(settings, swept.folder)
    again = read_sweep(swept.folder)
    assert again.measures == ["utility"]
    assert again.missing == ["forgetting is not compared: no run has a value of forget_probabilty"]
    assert again.missing[0] in write_sweep_report(again).read_text()
