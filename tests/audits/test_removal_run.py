from __future__ import annotations

from pathlib import Path

import pytest

from cli.command import demur
from demur.audits import AuditRequest
from demur.audits.suites import suites
from demur.errors import UsageError
from demur.runs import RunFolder
from demur.training import ForgetSettings, forget

FORGET, RETAIN = "lab:almanac-tiny:forget", "lab:almanac-tiny:retain"
QUICK = {
    "seeds": 1,
    "factors": 1.0,
    "steps": (0, 4),
    "samples": 1,
    "max_new_tokens": 8,
    "checks": ("relearn", "quantization", "lens", "prompts"),
}


@pytest.fixture(scope="module")
def run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A refusal-tuned run."""
    settings = ForgetSettings(
        model=str(tiny_model),
        forget=FORGET,
        retain=RETAIN,
        objective="idkdpo",
        learning_rate=1e-3,
        schedule="constant",
        epochs=3,
        save_steps=10**6,
    )
    return forget(settings, tmp_path_factory.mktemp("runs") / "idk")


def audit(target, reference, out: Path | None = None, sources=(), **settings):
    request = AuditRequest(str(target), str(reference), dict(sources), out, settings={**QUICK, **settings})
    return suites.get("removal").function(request)


@pytest.fixture(scope="module")
def audited(run: RunFolder, tiny_gold: Path):
    return audit(run.path, tiny_gold)


def test_recoveries_and_knowledge_of_each_model_are_written(audited):
    folder, reports = audited
    results = folder.results()
    results = results[results["suite"] == "removal"]
    assert [r.role for r in reports] == ["run", "before", "reference"]
    ours = set(results[results["role"] == "run"]["metric"])
    assert {"recovery_relearn", "recovery_int4", "recovery_prefill_2", "knowledge_relearn", "lens_0", "utility"} <= ours
    assert not any(m.startswith("recovery") for m in results[results["role"] != "run"]["metric"])
    known = results[(results["metric"] == "recovery_int8")].iloc[0]
    assert known["low"] <= known["value"] <= known["high"] and known["n"] == 10


def test_every_measurement_is_kept_so_that_curves_can_be_drawn_again(audited):
    folder, _ = audited
    table = folder.samples("removal_measurements")
    assert set(table.columns) == {"attack", "seed", "lr", "step", "id", "knowledge", "role"}
    curve = table[(table["attack"] == "relearn") & (table["role"] == "run")]
    assert set(curve["step"]) == {0, 4} and curve["lr"].unique() == pytest.approx([1e-3])
    facts = folder.samples("removal_facts")
    assert set(curve["id"]) == set(facts[~facts["shown"]]["id"])


def test_the_verdict_is_in_the_run_s_state_with_what_the_method_claims(audited):
    folder, reports = audited
    found = folder.state["removal"]
    assert found["outcome"] in ("suppression", "not forgotten", "broken")
    assert found["intention"] == "suppression" and found["control"]
    assert reports[0].notes["verdict"].startswith(found["outcome"])


def test_a_refusal_tuned_run_is_not_called_removed_even_if_it_claimed_removal(run, tiny_gold):
    folder, _ = audit(run.path, tiny_gold, intention="removal")
    assert folder.state["removal"]["outcome"] in ("suppression", "not forgotten")


def test_a_plain_model_needs_to_say_what_it_was_before(tiny_gold: Path, tiny_model: Path, tmp_path: Path):
    rows = {"forget": FORGET, "retain": RETAIN}
    with pytest.raises(UsageError, match="full=MODEL"):
        audit(tiny_gold, tiny_gold, tmp_path / "a", rows, learning_rate=1e-3)
    with pytest.raises(UsageError, match="learning_rate=RATE"):
        audit(tiny_gold, tiny_gold, tmp_path / "b", rows, full=str(tiny_model))
    folder, _ = audit(tiny_gold, tiny_gold, tmp_path / "c", rows, full=str(tiny_model), learning_rate=1e-3)
    assert folder.state["removal"]["outcome"] == "removal-consistent"


def test_an_unknown_set_is_refused(run, tiny_gold):
    with pytest.raises(UsageError, match="no set 'world_facts'"):
        audit(run.path, tiny_gold, None, {"world_facts": FORGET})


def test_the_command_audits_and_reports(audited, run: RunFolder, tiny_gold: Path):
    options = ["--option", "seeds=1", "--option", "factors=1.0", "--option", "steps=[0,4]", "--option", "samples=1"]
    options += ["--max-new-tokens", "8", "--option", "checks=[relearn,quantization,lens,prompts]"]
    done = demur("audit", str(run.path), "--suite", "removal", "--reference", str(tiny_gold), *options)
    assert done.code == 0, done.err
    assert "recovery_relearn" in done.out and "verdict:" in done.out
    bad = demur("audit", str(run.path), "--suite", "removal", "--option", "checks=[lense]")
    assert bad.code == 2 and "did you mean lens" in bad.err
