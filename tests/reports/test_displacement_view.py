"""The section on training with preference pairs: which runs get one, and what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from demur.errors import UsageError
from demur.reports import read_runs, write_report
from demur.reports.displacement_view import displacement_views
from demur.runs import RunFolder
from reports.made_runs import AT_GOLD, Maker


def preference_run(folder: Path, chosen: float, steps: int = 40, stage: str | None = None) -> RunFolder:
    """A run whose chosen answers gain so much over its steps, while the rejected ones lose 20 nats."""
    run = RunFolder.create(folder, {"command": "train", "model": "m", "data": "pairs.jsonl", "objective": "dpo"})
    run.update_state(status="complete", hashes={})
    logged = run
    if stage is not None:
        (folder / "stages" / stage).mkdir(parents=True)
        logged = RunFolder(folder / "stages" / stage)
    for step in range(1, steps + 1):
        at = (step - 1) / (steps - 1)
        logged.log("step", step=step, loss=0.7 - at, chosen_logps=-30 + chosen * at, rejected_logps=-40 - 20 * at)
    return run


@pytest.mark.parametrize(
    ("chosen", "tone", "words"), [(-10.0, "bad", "less likely too"), (5.0, "good", "no less likely")]
)
def test_says_whether_the_chosen_answers_fell(chosen: float, tone: str, words: str, tmp_path: Path) -> None:
    (view,) = displacement_views(read_runs([preference_run(tmp_path / "dpo", chosen)]))
    assert view.tone == tone and words in view.sentence and view.label == "dpo"
    # ten of forty steps at either end: their means lie 4.5 of 39 steps inside
    inside = 4.5 / 39
    assert f"chosen from {-30 + chosen * inside:.1f}".replace("-", "−") in view.sentence.replace("-", "−")
    assert view.figure.count('class="c0 mark"') == view.figure.count('class="c1 mark"') == 40
    assert "10 of 40 logged steps" in view.caption


def test_long_runs_are_thinned_and_repeated_steps_count_once(tmp_path: Path) -> None:
    run = preference_run(tmp_path / "long", 1.0, steps=1000)
    run.log("step", step=1000, loss=0.0, chosen_logps=-7.0, rejected_logps=-60.0)  # a resumed run logs steps again
    run.log("step", step=3, loss=0.0, chosen_logps=-30.0, rejected_logps=-40.0)
    evidence = read_runs([run])
    (steps,) = evidence.runs[0].preference_steps.values()
    assert [s["step"] for s in steps] == list(range(1, 1001)) and steps[-1]["chosen_logps"] == -7.0
    (view,) = displacement_views(evidence)
    assert view.figure.count('class="c0 mark"') == 100 and "step 1000: " in view.figure


def test_stages_of_a_taught_run_are_found(tmp_path: Path) -> None:
    run = preference_run(tmp_path / "taught", -5.0, stage="1-dpo")
    assert [v.label for v in displacement_views(read_runs([run]))] == ["taught"]
    second = RunFolder(run.path / "stages" / "2-ipo")
    second.path.mkdir()
    second.log("step", step=1, loss=0.0, chosen_logps=-1.0, rejected_logps=-2.0)
    assert [v.label for v in displacement_views(read_runs([run]))] == ["taught, 1-dpo", "taught, 2-ipo"]


def test_a_page_of_preference_runs_needs_no_audit_and_others_have_no_section(tmp_path: Path, maker: Maker) -> None:
    page = write_report([preference_run(tmp_path / "dpo", -10.0)], tmp_path / "report.html").read_text()
    assert 'id="displacement"' in page and "chosen fell" in page and 'id="verdict"' not in page
    both = write_report([maker.run("npo", AT_GOLD), preference_run(tmp_path / "ipo", 3.0)], tmp_path / "both.html")
    assert 'id="displacement"' in both.read_text() and 'id="verdict"' in both.read_text()
    assert 'id="displacement"' not in write_report([maker.run("ga", AT_GOLD)], tmp_path / "ga.html").read_text()


def test_a_run_with_neither_is_refused(tmp_path: Path) -> None:
    bare = RunFolder.create(tmp_path / "bare", {"command": "train"})
    bare.log("step", step=1, loss=1.0)
    with pytest.raises(UsageError, match="has no audit results"):
        read_runs([bare])
