from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from demur import UsageError
from demur.training import ForgetSettings, forget

Make = Callable[..., ForgetSettings]
PDU: dict[str, Any] = {"objective": "pdu", "retain_limit": 0.05, "retain_weight": 1.0, "dual_warmup": 1, "epochs": 3}


def steps(run: Any, name: str) -> list[float]:
    return [event[name] for event in run.events() if event["event"] == "step" and name in event]


def test_the_multiplier_moves_by_the_excess_of_each_step_once_it_is_warm(make_settings: Make, tmp_path: Path) -> None:
    run = forget(make_settings(**PDU, dual_rate=2.0), tmp_path / "run")
    value, loss = steps(run, "multiplier"), steps(run, "retain_nll")
    assert value[:4] == [1.0] * 4  # three steps of the first epoch, and the step after them
    expected = 1.0
    for step in range(3, 8):
        expected = max(0.0, expected + 2.0 * (loss[step] - 0.05))
        assert value[step + 1] == pytest.approx(expected, rel=1e-6)
    assert len(set(value)) > 4


def test_once_an_epoch_it_moves_by_the_mean_excess(make_settings: Make, tmp_path: Path) -> None:
    run = forget(make_settings(**PDU, dual_update="epoch"), tmp_path / "run")
    value, loss = steps(run, "multiplier"), steps(run, "retain_nll")
    first = max(0.0, 1.0 + np.mean(loss[0:3]) - 0.05)
    second = max(0.0, first + np.mean(loss[3:6]) - 0.05)
    np.testing.assert_allclose(value, [1.0] * 3 + [first] * 3 + [second] * 3, rtol=1e-6)


def test_a_loss_below_its_limit_lets_the_multiplier_fall_and_never_below_zero(
    make_settings: Make, tmp_path: Path
) -> None:
    run = forget(make_settings(**{**PDU, "retain_limit": 50.0}, dual_rate=0.01), tmp_path / "run")
    value = steps(run, "multiplier")
    assert value[4] < 1.0 and min(value) == 0.0


def test_accumulated_passes_move_it_as_one_large_batch(make_settings: Make, tmp_path: Path) -> None:
    whole = forget(make_settings(**PDU, batch_size=4), tmp_path / "whole")
    parts = forget(make_settings(**PDU, batch_size=1, accumulate=4), tmp_path / "parts")
    np.testing.assert_allclose(steps(parts, "multiplier"), steps(whole, "multiplier"), rtol=1e-3)


@pytest.mark.parametrize("given", [{}, {"dual_update": "epoch", "save_steps": 2}], ids=["step", "epoch"])
def test_a_killed_run_goes_on_with_the_same_multiplier(given: dict, make_settings: Make, tmp_path: Path) -> None:
    settings = make_settings(**PDU, **given)
    whole = forget(settings, tmp_path / "whole")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(settings.model_dump()))
    command = [sys.executable, str(Path(__file__).parent / "killed_run.py"), str(recipe), str(tmp_path / "killed"), "7"]
    killed = subprocess.run(command, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    resumed = forget(settings, tmp_path / "killed")
    assert "resumed" in [event["event"] for event in resumed.events()]
    assert steps(resumed, "multiplier")[-1] == steps(whole, "multiplier")[-1]
    a, b = (load_file(run.model_path / "model.safetensors") for run in (whole, resumed))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_any_objective_with_a_retain_loss_may_be_held_to_a_limit(make_settings: Make, tmp_path: Path) -> None:
    run = forget(
        make_settings(objective="npo", retain_objective="nll", retain_limit=0.05, dual_warmup=0), tmp_path / "run"
    )
    assert len(set(steps(run, "multiplier"))) > 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"retain_limit": None}, r"pass --retain-limit, a bit above the 0\.\d+ that it is before"),
        ({"retain_objective": "none"}, "--retain-limit needs a retain loss, and 'pdu' is run without one"),
        ({"retain_objective": "none", "retain_limit": None}, "holds a retain loss below a limit: run it with one"),
        ({"retain": None}, "needs retain rows: pass --retain"),
        ({"dual_warmup": 3}, "moves only after 3 epochs, and the run has 3: pass more --epochs"),
        ({"objective": "npo"}, "--retain-limit needs a retain loss, and 'npo' is run without one"),
    ],
)
def test_a_constraint_that_cannot_work_is_refused(
    given: dict, message: str, make_settings: Make, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        forget(make_settings(**{**PDU, **given}), tmp_path / "run")
    assert not (tmp_path / "run").exists()
