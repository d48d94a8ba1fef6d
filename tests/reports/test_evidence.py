from __future__ import annotations

import math

import pytest

from demur.errors import UsageError
from demur.reports.evidence import read_runs
from demur.runs import Result, RunFolder
from reports.made_runs import AT_GOLD, BEFORE, COLLAPSED, GOLD, REMEMBERS


def test_runs_that_share_before_and_gold_show_them_once(maker):
    evidence = read_runs([maker.run("npo", REMEMBERS), maker.run("simnpo", AT_GOLD)])
    assert [(m.label, m.role) for m in evidence.models] == [
        ("before", "before"),
        ("gold", "reference"),
        ("npo", "run"),
        ("simnpo", "run"),
    ]
    assert evidence.model(evidence.runs[1], "reference").label == "gold"


def test_different_models_before_are_kept_apart_and_named_after_their_runs(maker):
    evidence = read_runs([maker.run("a", AT_GOLD), maker.run("b", AT_GOLD, before=BEFORE | {"model_utility": 0.5})])
    assert [m.label for m in evidence.of_role("before")] == ["before (a)", "before (b)"]


def test_equal_numbers_with_different_weights_are_different_models(maker):
    def weights(before):
        return {"hashes": {"weights": {"before": before}}}

    folders = [maker.run("a", AT_GOLD, state=weights("11")), maker.run("b", AT_GOLD, state=weights("22"))]
    assert len(read_runs(folders).of_role("before")) == 2


def test_a_run_without_results_is_refused_with_what_to_do(tmp_path):
    folder = RunFolder.create(tmp_path / "bare", {"objective": "npo"})
    with pytest.raises(UsageError, match=r"bare has no audit results: run `demur audit .*bare` first"):
        read_runs([folder])


def test_a_trajectory_alone_is_no_audit(tmp_path):
    folder = RunFolder.create(tmp_path / "trained", {"objective": "npo"})
    folder.add_results([Result("trained", "trajectory", "forget_probability", 0.5, 0.4, 0.6, 100, epoch=1.0)])
    with pytest.raises(UsageError, match="demur audit"):
        read_runs([folder])


def test_an_audit_of_the_model_before_alone_is_no_audit_of_the_run(tmp_path):
    folder = RunFolder.create(tmp_path / "half", {"objective": "npo"})
    folder.add_results([Result("half", "tofu", "model_utility", 0.6, 0.5, 0.7, 100, role="before")])
    with pytest.raises(UsageError, match="demur audit"):
        read_runs([folder])


def test_all_unaudited_runs_are_named_at_once(maker, tmp_path):
    bare = [RunFolder.create(tmp_path / name, {}) for name in ("x", "y")]
    with pytest.raises(UsageError, match=r"x, .*y have no audit results"):
        read_runs([maker.run("fine", AT_GOLD), *bare])


def test_no_runs_and_runs_named_twice_are_refused(maker):
    folder = maker.run("npo", AT_GOLD)
    with pytest.raises(UsageError, match="at least one"):
        read_runs([])
    with pytest.raises(UsageError, match="named twice"):
        read_runs([folder, RunFolder(folder.path / ".." / "npo")])


def test_runs_of_the_same_name_are_told_apart_by_their_folders(maker, tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    folders = []
    for seed in ("one", "two"):
        maker.root = tmp_path / seed
        folders.append(maker.run("npo", AT_GOLD))
    assert [run.label for run in read_runs(folders).runs] == ["one/npo", "two/npo"]


def test_none_survives_the_parquet_file(maker):
    run = read_runs([maker.run("npo", AT_GOLD)]).runs[0]
    gold = run.results["reference"]["forget_quality"]
    assert gold.value is None and gold.low is None
    assert isinstance(gold.n, int)
    assert run.results["run"]["model_utility"].seed == 1


def test_an_infinite_logarithm_is_read_as_none(tmp_path):
    folder = RunFolder.create(tmp_path / "r", {})
    folder.add_results(
        [
            Result("r", "tofu", "forget_quality", 0.0, None, None, 400, better="higher", method="none"),
            Result("r", "tofu", "forget_quality_log10", -math.inf, None, None, 400, better="higher", method="none"),
        ]
    )
    assert read_runs([folder]).runs[0].results["run"]["forget_quality_log10"].value is None


def test_trajectories_are_in_order_and_apart_from_the_final_results(maker):
    run = read_runs([maker.run("ga", COLLAPSED, epochs=4)]).runs[0]
    assert [r.epoch for r in run.trajectory["forget_probability"]] == [1.0, 2.0, 3.0, 4.0]
    assert run.results["run"]["forget_probability"].epoch is None


def test_the_last_audits_notes_are_kept_by_role(maker):
    folder = maker.run("npo", AT_GOLD, notes={"run": {"privleak": "old"}})
    folder.log("audit", suite="tofu", role="run", model="m", notes={"privleak": "measured against an AUC of 0.5"})
    folder.log("audit", suite="other", role="run", model="m", notes={"privleak": "of another suite"})
    evidence = read_runs([folder])
    assert evidence.model(evidence.runs[0], "run").notes == {"privleak": "measured against an AUC of 0.5"}
    assert evidence.model(evidence.runs[0], "reference").notes == {}


def test_metrics_of_other_suites_stand_under_their_suites_name(maker):
    folder = maker.run("npo", AT_GOLD)
    folder.add_results([Result("npo", "muse", "model_utility", 0.1, 0.0, 0.2, 50)])
    results = read_runs([folder]).runs[0].results["run"]
    assert (results["muse/model_utility"].value, results["model_utility"].value) == (0.1, 0.601)


def test_a_run_measured_only_in_another_suite_is_about_that_suite(tmp_path):
    folder = RunFolder.create(tmp_path / "r", {})
    folder.add_results([Result("r", "tofu-open-unlearning", "model_utility", 0.6, 0.5, 0.7, 100)])
    run = read_runs([folder]).runs[0]
    assert (run.suite, list(run.results["run"])) == ("tofu-open-unlearning", ["model_utility"])


def test_has_reference_follows_the_run_and_not_the_report(maker):
    evidence = read_runs([maker.run("with", AT_GOLD), maker.run("without", REMEMBERS, reference=None)])
    own = {m.label: m.has_reference for m in evidence.models if m.role == "run"}
    assert own == {"with": True, "without": False}
    assert GOLD["model_utility"] == evidence.of_role("reference")[0].results["model_utility"].value
