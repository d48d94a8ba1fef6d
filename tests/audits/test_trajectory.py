from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from audits.tiny_world import tiny_data, tiny_lm
from demur.audits.tofu_data import TofuSettings
from demur.audits.tofu_scoring import tofu_samples
from demur.audits.trajectory import Trajectory
from demur.runs import RunFolder
from demur.training import ForgetSettings


@pytest.fixture
def settings(tmp_path: Path) -> ForgetSettings:
    for name, rows in tiny_data().sets.items():
        rows.to_json(str(tmp_path / f"{name}.jsonl"))
    return ForgetSettings(
        model="tiny", forget=str(tmp_path / "forget.jsonl"), retain=str(tmp_path / "retain.jsonl"), seed=5
    )


def test_epochs_are_measured_and_written_beside_each_other(settings: ForgetSettings, tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", {})
    lm = tiny_lm()
    lm.model.train()
    for epoch in (1, 2, 2):
        Trajectory(settings, run.path)(lm, epoch)
    assert lm.model.training
    table = run.results()
    assert sorted(zip(table["metric"], table["epoch"], strict=True)) == [
        *(("forget_probability", e) for e in (1.0, 2.0)),
        *(("retain_probability", e) for e in (1.0, 2.0)),
    ]
    assert set(table["suite"]) == {"trajectory"}
    expected = tofu_samples(lm, tiny_data(), TofuSettings(generation=False)).tables["forget"]["probability"].mean()
    forget = table[table["metric"] == "forget_probability"].iloc[0]
    assert forget["value"] == pytest.approx(expected, abs=1e-6)
    assert (forget["n"], forget["seed"], forget["run"]) == (6, 5, "run")


def test_large_sets_are_measured_in_evenly_spread_rows(settings: ForgetSettings, tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", {})
    lm = tiny_lm()
    Trajectory(settings, run.path, rows=2)(lm, 1)
    first = tofu_samples(lm, tiny_data(), TofuSettings(generation=False)).tables["forget"]["probability"]
    found = run.results().set_index("metric").loc["forget_probability"]
    assert found["n"] == 2
    assert found["value"] == pytest.approx(np.mean([first[0], first[5]]), abs=1e-6)


def test_measuring_neither_moves_weights_nor_draws_random_numbers(settings: ForgetSettings, tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", {})
    lm = tiny_lm()
    before, state = lm.weights_hash(), torch.get_rng_state()
    Trajectory(settings, run.path)(lm, 1)
    assert lm.weights_hash() == before
    assert torch.equal(torch.get_rng_state(), state)


def test_a_broken_model_is_recorded_as_unscored(settings: ForgetSettings, tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", {})
    lm = tiny_lm()
    with torch.no_grad():
        lm.model.lm_head.weight.fill_(float("nan"))
    Trajectory(settings, run.path)(lm, 1)
    found = run.results().set_index("metric").loc["forget_probability"]
    assert pd.isna(found["value"])
    assert found["unscored"] == 6
