"""A report on what the TOFU suite itself wrote, so that both keep agreeing on the run folder."""

from __future__ import annotations

import pytest

from audits.tiny_world import tiny_data, tiny_lm
from demur.audits.tofu import audit_tofu, report_tofu, tofu_samples
from demur.audits.tofu_data import TofuSettings
from demur.reports import read_runs, write_report
from demur.reports.provenance import notices
from demur.reports.questions import questions_data
from demur.reports.tables import headline_table
from demur.runs import RunFolder


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    quick = TofuSettings(max_new_tokens=4)
    gold = tofu_samples(tiny_lm("chat", True), tiny_data(), quick)
    run = RunFolder.create(
        tmp_path_factory.mktemp("runs") / "npo", {"command": "forget", "objective": "npo", "seed": 0}
    )
    report_tofu(gold, gold, quick, role="reference", run="npo").save(run)
    report_tofu(gold, gold, quick, role="before", run="npo").save(run)
    audit_tofu(tiny_lm("chat", True), tiny_data(), reference=gold, settings=quick, run="npo").save(run)
    return run


def test_every_headline_number_of_a_full_audit_arrives(audited):
    table = headline_table(read_runs([audited]).models)
    assert [row.role for row in table.rows] == ["before", "reference", "run"]
    assert all(cell.n and not cell.reason for row in table.rows for cell in row.cells)


def test_every_sample_of_a_full_audit_arrives(audited):
    evidence = read_runs([audited])
    data = questions_data(evidence)
    rows = sum(len(audited.samples(f"tofu_{name}")) for name in tiny_data().sets)
    assert sum(len(row[4]) for row in data["rows"]) == rows
    assert len(data["splits"]) == len(tiny_data().sets)
    assert notices(evidence) == []


def test_three_times_the_same_model_shows_no_forgetting_and_claims_none(audited, tmp_path):
    html = write_report([audited], tmp_path / "report.html").read_text(encoding="utf-8")
    assert "the model before could not be told apart from gold either" in html
