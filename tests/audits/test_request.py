from __future__ import annotations

from pathlib import Path

import pytest

from demur.audits.request import AuditRequest, companions, evaluation_rows
from demur.audits.tofu_run import tofu_sources
from demur.errors import UsageError
from demur.runs import RunFolder


def _run(folder: Path, status: str = "complete", **config: object) -> Path:
    run = RunFolder.create(folder, {"command": "forget", "model": "m", **config})
    run.update_state(status=status)
    run.model_path.mkdir(exist_ok=True)
    return folder


def test_the_benchmarks_other_sets_are_found_from_the_forget_set() -> None:
    expected = {
        "retain": "tofu:retain_perturbed",
        "real_authors": "tofu:real_authors_perturbed",
        "world_facts": "tofu:world_facts_perturbed",
    }
    assert companions("tofu:forget10") == companions("tofu:forget01_perturbed") == expected
    assert companions("lab:almanac-tiny@world=2:forget")["holdout"] == "lab:almanac-tiny@world=2:holdout"
    assert companions("almanac:forget@world=1")["real_authors"] == "almanac:real_authors@world=1"
    assert companions("my/forget.jsonl") == companions("tofu:full[-40:]") == {}


@pytest.mark.parametrize(
    ("trained", "measured"),
    [
        ("tofu:forget05", "tofu:forget05_perturbed"),
        ("tofu:forget20", "tofu:forget20"),
        ("tofu:retain90", "tofu:retain_perturbed"),
        ("tofu:full", "tofu:full"),
        ("rows.jsonl", "rows.jsonl"),
    ],
)
def test_tofu_is_measured_on_its_perturbed_sets(trained: str, measured: str) -> None:
    assert evaluation_rows(trained) == measured


def test_rows_come_as_asked_then_as_trained_then_from_the_benchmark(tmp_path: Path) -> None:
    run = _run(tmp_path / "run", forget="almanac:forget", retain="mine.jsonl", holdout=None)
    sources = tofu_sources(AuditRequest(str(run), sources={"world_facts": "facts.csv"}))
    assert sources == {
        "forget": "almanac:forget",
        "retain": "mine.jsonl",
        "real_authors": "almanac:real_authors",
        "world_facts": "facts.csv",
        "holdout": "almanac:holdout",
    }


def test_forget_rows_are_needed_and_sets_are_known() -> None:
    with pytest.raises(UsageError, match="pass --forget"):
        tofu_sources(AuditRequest("model"))
    with pytest.raises(UsageError, match="no set 'forgot'"):
        tofu_sources(AuditRequest("model", sources={"forget": "a", "forgot": "b"}))


@pytest.mark.parametrize("status", ["running", "failed", "interrupted"])
def test_an_unfinished_run_is_refused(tmp_path: Path, status: str) -> None:
    with pytest.raises(UsageError, match="is not finished"):
        AuditRequest(str(_run(tmp_path / "run", status))).check()


def test_a_plain_model_needs_a_folder_for_its_results(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="pass --out"):
        AuditRequest("lab:almanac").check()
    AuditRequest("lab:almanac", out=tmp_path / "out").check()


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "run", {"command": "audit"})
    with pytest.raises(UsageError, match="holds no model"):
        AuditRequest(str(tmp_path / "run")).check()
