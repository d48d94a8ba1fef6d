from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from demur.errors import DemurError, UsageError
from demur.processes import Event
from demur.sweeps import SweepSettings, run_sweep
from demur.sweeps.cluster import Cluster


def test_a_local_cluster_finds_what_processes_find(
    make: Callable[..., SweepSettings], here: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray", reason="needs Ray: pip install 'demur[ray]'")
    settings = make(objectives=["npo", "graddiff"], grid={"graddiff.learning_rate": [1e-4]}, seeds=[1])
    events: list[Event] = []
    ours = run_sweep(settings, tmp_path / "here")
    theirs = run_sweep(settings, tmp_path / "there", ray="local", jobs=2, watch=events.append)
    assert set(theirs.trials["status"]) == {"done"}, theirs.trials["reason"].tolist()
    pd.testing.assert_frame_equal(theirs.trials.drop(columns="seconds"), ours.trials.drop(columns="seconds"))
    assert [event.kind for event in events].count("done") == 3, "two trials and the controls"


def test_a_machine_that_does_not_see_the_folder_is_named(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs Ray: pip install 'demur[ray]'")
    with pytest.raises(DemurError, match=f"does not see {tmp_path}.*share"):
        Cluster("local", tmp_path, None, gpu=False)


def test_without_ray_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(UsageError, match=r"pip install 'demur\[ray\]'"):
        Cluster("local", tmp_path, None, gpu=False)
