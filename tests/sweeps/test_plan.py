from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from demur.errors import UsageError
from demur.sweeps import SweepSettings, configurations

Make = Callable[..., SweepSettings]


def labels(settings: SweepSettings) -> list[str]:
    return [c.label for c in configurations(settings)]


def test_an_option_is_varied_for_its_objective_alone(make: Make) -> None:
    grid = {"learning_rate": [1e-4, 5e-4], "npo.beta": [0.05, 0.1], "graddiff.learning_rate": [1e-5]}
    assert labels(make(grid=grid)) == [
        "npo learning_rate=0.0001 beta=0.05",
        "npo learning_rate=0.0001 beta=0.1",
        "npo learning_rate=0.0005 beta=0.05",
        "npo learning_rate=0.0005 beta=0.1",
        "graddiff learning_rate=1e-05",
    ]


def test_the_same_settings_written_in_two_ways_are_one_configuration(make: Make) -> None:
    grid = {"learning_rate": ["1e-4", 0.0001], "npo.beta": ["1e-1", 0.1]}
    (one,) = configurations(make(objectives=["npo", "npo"], grid=grid))
    (again,) = configurations(make(objectives=["npo"], grid={"learning_rate": [1e-4], "npo.beta": [0.1]}))
    assert one.name == again.name


def test_no_grid_is_each_objective_as_it_is(make: Make) -> None:
    assert labels(make(grid={})) == ["npo", "graddiff"]


def test_samples_are_drawn_by_their_seed_from_the_grid(make: Make) -> None:
    grid = {"learning_rate": [i * 1e-5 for i in range(1, 50)]}
    everything = labels(make(grid=grid))
    some, same, others = (labels(make(grid=grid, samples=7, sample_seed=seed)) for seed in (0, 0, 1))
    assert some == same != others
    assert len(set(some)) == 7 and set(some) < set(everything)
    assert labels(make(samples=99)) == labels(make())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objectives": ["npoo"]}, "unknown objective 'npoo': did you mean npo"),
        ({"objectives": []}, "'objectives'"),
        ({"grid": {"npo.betta": [1]}}, "grid 'npo.betta' is no setting: did you mean beta"),
        ({"grid": {"learning_rat": [1]}}, "did you mean learning_rate"),
        ({"grid": {"beta": [1]}}, "grid 'beta' is an option of an objective: write npo.beta"),
        ({"grid": {"simnpo.beta": [1]}}, "'simnpo' is not among the objectives (npo, graddiff)"),
        ({"grid": {"learning_rate": []}}, "'learning_rate' has no values"),
        ({"grid": {"learning_rate": [-1]}}, "greater than 0"),
        ({"grid": {"npo.beta": ["high"]}}, "option 'beta' of npo must be a number"),
        ({"grid": {"seed": [1, 2]}}, "cannot be swept: list the seeds under seeds"),
        ({"grid": {"model": ["a"]}}, "cannot be swept: one sweep is about one model"),
        ({"grid": {"device": ["cpu"]}}, "set it once for all trials under settings"),
        ({"grid": {"epochs": list(range(1, 20_000))}}, "leave some values out"),
        ({"objectives": ["nll"]}, "not on a forget set"),
        ({"budget": "soon"}, "write for instance 90m or 2h"),
        ({"budget": "0s"}, "no length of time"),
        ({"max_runs": 0}, "'max_runs'"),
        ({"seeds": []}, "'seeds'"),
        ({"grdi": {}}, "did you mean grid"),
        ({"attack": {"step": 3}}, "did you mean steps"),
    ],
)
def test_what_cannot_be_tried_is_refused(make: Make, changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    from demur.sweeps.table import planned

    with pytest.raises(UsageError, match=message.replace("(", r"\(").replace(")", r"\)")):
        planned(make(**changes), tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_objective_without_its_rows_is_refused(make: Make, recipe: dict[str, Any]) -> None:
    alone = {k: v for k, v in recipe["settings"].items() if k != "retain"}
    with pytest.raises(UsageError, match="'graddiff' needs retain rows"):
        configurations(make(settings=alone, objectives=["graddiff"]))
    with pytest.raises(UsageError, match="list the seeds under seeds"):
        configurations(make(settings={**alone, "seed": 3}))


def test_what_is_given_goes_over_the_recipe(recipe: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe))
    made = SweepSettings.make(file, settings={"epochs": 7, "holdout": None}, seeds=[5], objectives=None, budget="1.5h")
    assert made.settings == {**recipe["settings"], "epochs": 7}
    assert (made.seeds, made.objectives, made.seconds()) == ([5], recipe["objectives"], 5400.0)
    assert SweepSettings.make(file).model_dump() == SweepSettings.make(**recipe).model_dump()
