"""The section on rows with target words: which runs get one, and what it says."""

from __future__ import annotations

from pathlib import Path

from demur.reports import read_runs, write_report
from demur.reports.targets_view import targets_views
from demur.runs import RunFolder
from reports.made_runs import AT_GOLD, Maker


def taught(folder: Path, steps: int = 8) -> RunFolder:
    """A run whose target rows make three quarters of the loss at first, and none of it at the end."""
    run = RunFolder.create(folder, {"command": "refuse", "model": "m", "data": "rows.jsonl", "method": "derta"})
    run.update_state(status="complete", hashes={})
    (folder / "stages" / "1-sft").mkdir(parents=True)
    stage = RunFolder(folder / "stages" / "1-sft")
    for step in range(1, steps + 1):
        target = 3.0 if step <= steps // 2 else 0.0
        stage.log("step", step=step, loss=target + 1.0, target_part=target, other_part=1.0)
    return run


def test_says_what_share_of_the_loss_they_make_at_either_end(tmp_path: Path) -> None:
    (view,) = targets_views(read_runs([taught(tmp_path / "derta")]))
    assert view.label == "derta" and "75% of its loss" in view.sentence and "0% at the end" in view.sentence
    assert view.figure.count('class="c0 mark"') == view.figure.count('class="c1 mark"') == 8
    assert "2 of 8 logged steps" in view.caption


def test_a_page_of_such_a_run_needs_no_audit_and_others_have_no_section(tmp_path: Path, maker: Maker) -> None:
    page = write_report([taught(tmp_path / "derta")], tmp_path / "report.html").read_text()
    assert 'id="targets"' in page and 'href="#targets"' in page and 'id="displacement"' not in page
    assert 'id="targets"' not in write_report([maker.run("ga", AT_GOLD)], tmp_path / "ga.html").read_text()
