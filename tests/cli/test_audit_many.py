from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cli.command import FORGET, GOLD, demur, forget_words
from demur import data, models
from demur.audits import Shared, samples, tofu
from demur.runs import RunFolder

WORDS = ("--reference", GOLD, "--attack", "loss", "--option", "max_new_tokens=8")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_gold: Path) -> list[Path]:
    """Three finished runs that were not audited."""
    folders = [tmp_path_factory.mktemp("runs") / name for name in ("low", "high", "again")]
    for folder, rate in zip(folders, (1e-4, 1e-3, 1e-3), strict=True):
        done = demur(*forget_words(folder, "--learning-rate", rate, "--no-trajectory"))
        assert done.code == 0, done.err
    return folders


def numbers(run: Path) -> dict[tuple[str, str], float]:
    table = RunFolder(run).results()
    return table.set_index(["role", "metric"])["value"].astype(float).round(12).dropna().to_dict()


def test_several_runs_get_the_numbers_that_each_gets_alone(
    runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "cache_dir", lambda: tmp_path / "cache")
    seen: dict[str, list[str]] = {}
    for place, name, real in (
        (models, "load_model", models.load_model),
        (data, "read_rows", data.read_rows),
        (tofu, "tofu_samples", tofu.tofu_samples),
    ):
        told = seen.setdefault(name, [])

        def counted(first: Any, *rest: Any, _real: Any = real, _told: list[str] = told, **options: Any) -> Any:
            _told.append(str(getattr(first, "name", first)))
            return _real(first, *rest, **options)

        monkeypatch.setattr(place, name, counted, raising=False)
    done = demur("audit", *runs, *WORDS)
    assert done.code == 0, done.err
    loaded = sorted(Path(name).name for name in seen["load_model"])
    assert loaded == sorted(["low", "high", "again", GOLD, "lab:almanac-tiny"]), "each model is loaded once"
    assert len(seen["read_rows"]) == len(set(seen["read_rows"])) == 5, "rows are read once"
    assert len(seen["tofu_samples"]) == 4, "two runs have the same weights"
    header = next(line for line in done.out.splitlines() if "metric" in line)
    assert [name for name in header.replace("┃", " ").split() if name in ("low", "high", "again", "before")] == [
        "low",
        "high",
        "again",
        "before",
    ]
    together = [numbers(run) for run in runs]
    assert together[1] == together[2] != together[0]
    for run in runs:
        (run / "results.parquet").unlink()
        assert demur("audit", run, *WORDS).code == 0
    assert [numbers(run) for run in runs] == together


def test_a_run_that_cannot_be_audited_does_not_stop_the_others(runs: list[Path], tmp_path: Path) -> None:
    unfinished = RunFolder.create(tmp_path / "unfinished", {"command": "forget", "model": "m"})
    (runs[0] / "results.parquet").unlink(missing_ok=True)
    done = demur("audit", unfinished.path, runs[0], tmp_path / "nowhere", *WORDS)
    assert done.code == 1
    assert f"{unfinished.path}: the run {unfinished.path} is not finished" in done.err
    assert f"{tmp_path / 'nowhere'}: " in done.err and "pass --out DIR" in done.err
    assert numbers(runs[0]) and "forget_probability" in done.out


def test_what_is_wrong_for_all_is_said_once(runs: list[Path]) -> None:
    done = demur("audit", *runs, "--reference", "lab:almanac-tinny")
    assert done.code == 2 and "did you mean" in done.sentence
    done = demur("audit", *runs, "--forget", FORGET, "--out", runs[0])
    assert done.code == 2 and "leave it out for several runs" in done.sentence


def test_shared_things_are_made_once_and_failures_are_not_kept() -> None:
    shared, made = Shared(), []

    def fail() -> None:
        raise ValueError

    with pytest.raises(ValueError):
        shared.once("key", fail)
    for _ in range(2):
        assert shared.once("key", lambda: made.append(1) or len(made)) == 1
