from __future__ import annotations

import json
from pathlib import Path

import pytest

from audits.tiny_world import tiny_data, tiny_lm
from demur.audits import tofu
from demur.audits.request import AuditRequest
from demur.audits.tofu_run import run_tofu
from demur.errors import UsageError
from demur.models import LanguageModel
from demur.runs import RunFolder

QUICK = {"max_new_tokens": 3}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, knowing_lm: LanguageModel) -> Path:
    """A finished run, the model before it, a gold model, and rows."""
    monkeypatch.setenv("DEMUR_CACHE", str(tmp_path / "cache"))
    for name, rows in tiny_data().sets.items():
        rows.to_json(str(tmp_path / f"{name}.jsonl"))
    knowing_lm.save(tmp_path / "before")
    tiny_lm("chat", True).save(tmp_path / "gold")
    rows_of = {name: str(tmp_path / f"{name}.jsonl") for name in ("forget", "retain", "holdout")}
    run = RunFolder.create(tmp_path / "run", {"command": "forget", "model": str(tmp_path / "before"), **rows_of})
    tiny_lm("chat", True, 0.4).save(run.model_path)
    run.update_state(status="complete", hashes={"data": {"forget": "f"}, "weights": {"before": "b"}})
    return tmp_path


def _sources(world: Path) -> dict[str, str]:
    return {name: str(world / f"{name}.jsonl") for name in ("real_authors", "world_facts")}


def test_run_model_before_and_reference_land_in_the_run_folder(world: Path) -> None:
    seen = set()
    request = AuditRequest(str(world / "run"), str(world / "gold"), _sources(world), settings=QUICK)
    folder, reports = run_tofu(request, lambda role, stage, done, total: seen.add((role, stage)))
    assert [r.role for r in reports] == ["run", "before", "reference"]
    assert seen == {(r, s) for r in ("run", "before", "reference") for s in ("scoring answers", "answering questions")}
    table = folder.results()
    assert set(table["run"]) == {"run"}
    by_role = table.set_index(["role", "metric"])["value"]
    assert by_role["before", "forget_probability"] > 5 * by_role["run", "forget_probability"]
    assert by_role["reference", "forget_quality"] == 1
    assert by_role["reference", "privleak"] == 0
    assert by_role.notna().all()
    forget = folder.samples("tofu_forget")
    assert forget is not None
    assert forget.groupby("role").size().to_dict() == {"before": 6, "reference": 6, "run": 6}
    hashes = folder.state["hashes"]
    assert set(hashes["data"]) == {"forget", "audit"}
    assert set(hashes["weights"]) == {"before", "reference"}


def test_a_second_run_finds_the_shared_models_measured(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_tofu(AuditRequest(str(world / "run"), str(world / "gold"), settings=QUICK))
    second = RunFolder.create(world / "second", RunFolder(world / "run").config)
    tiny_lm("chat", True, 0.5).save(second.model_path)
    second.update_state(status="complete")
    measured = []
    real = tofu.tofu_samples
    monkeypatch.setattr(tofu, "tofu_samples", lambda lm, *a, **k: measured.append(lm.name) or real(lm, *a, **k))
    run_tofu(AuditRequest(str(world / "second"), str(world / "gold"), settings=QUICK))
    assert measured == [str(world / "second")]


def test_a_plain_model_is_audited_into_a_folder_of_its_own(world: Path) -> None:
    sources = {"forget": str(world / "forget.jsonl")}
    request = AuditRequest(str(world / "gold"), sources=sources, out=world / "out", settings=QUICK)
    folder, reports = run_tofu(request)
    assert [r.role for r in reports] == ["run"]
    assert folder.config["audited"] == str(world / "gold")
    assert folder.config["sources"] == sources
    assert len(folder.results()) == len(reports[0].results)


def test_compat_writes_open_unlearnings_files_and_reads_them_as_reference(world: Path) -> None:
    settings = {**QUICK, "compat": "open-unlearning"}
    gold = AuditRequest(str(world / "gold"), None, _forget(world), world / "gold-eval", settings=settings)
    run_tofu(gold)
    assert (world / "gold-eval" / "TOFU_SUMMARY.json").is_file()
    for reference in (world / "gold-eval", world / "gold-eval" / "TOFU_EVAL.json"):
        folder, reports = run_tofu(AuditRequest(str(world / "run"), str(reference), settings=settings))
        assert reports[0].summary["forget_quality"] < 1
    log = json.loads((folder.path / "TOFU_EVAL.json").read_text())
    assert log["forget_quality"]["agg_value"] == pytest.approx(reports[0].summary["forget_quality"])
    assert (folder.path / "before" / "TOFU_EVAL.json").is_file()
    assert set(folder.results()["suite"]) == {"tofu-open-unlearning"}
    assert folder.samples("tofu_open_unlearning_forget") is not None


def _forget(world: Path) -> dict[str, str]:
    return {name: str(world / f"{name}.jsonl") for name in ("forget", "holdout")}


def test_a_reference_log_of_other_rows_is_refused(world: Path) -> None:
    log = {"forget_truth_ratio": {"agg_value": 0.5, "value_by_index": {"0": {"score": 0.5}}}}
    (world / "TOFU_EVAL.json").write_text(json.dumps(log))
    with pytest.raises(UsageError, match="measured on 1 forget rows, not on 6"):
        run_tofu(AuditRequest(str(world / "run"), str(world / "TOFU_EVAL.json"), settings=QUICK))


def test_nothing_is_loaded_for_a_wrong_setting(world: Path) -> None:
    request = AuditRequest(str(world / "run"), settings={"k": 2.0}, load={"dtype": "no such type"})
    with pytest.raises(UsageError, match="0 < k"):
        run_tofu(request)
