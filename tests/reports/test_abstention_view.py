from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from demur.audits.abstention_metrics import abstention_results
from demur.audits.calibration import aurc
from demur.reports import describe, read_runs, write_report
from demur.reports.abstention_view import abstention_views
from demur.reports.suite_sections import suite_sections
from demur.runs import RunFolder

DOMAINS = ("in", "out_of_it")


def answers(seed, asked):
    """Forty answers whose confidence says something of whether they are right."""
    generator = np.random.default_rng(seed)
    conf = generator.random(40)
    correct = (generator.random(40) < conf).astype(float)
    table = pd.DataFrame({"id": [str(i) for i in range(40)], "prompt": "q", "truth": "a", "generation": "a"})
    table["correct"], table["abstained"], table["willing"] = correct, 0.0, (conf > 0.3).astype(float)
    table["known"], table["predict_conf"] = correct, conf
    table["sure_prob"] = conf**2 if asked else np.nan
    table["combined"] = (table["predict_conf"] + table["sure_prob"]) / 2
    return table


def abstention_run(root, asked=True):
    folder = RunFolder.create(root / "taught", {"command": "refuse", "model": "m", "method": "r-tuning"})
    made = {
        role: {d: answers(10 * i + j, asked) for j, d in enumerate(DOMAINS)} for i, role in enumerate(("run", "before"))
    }
    for role, tables in made.items():
        results, notes = abstention_results(tables, role=role)
        folder.add_results(results)
        folder.log("audit", suite="abstention", role=role, model="m", notes=notes)
    for domain in DOMAINS:
        tables = [made[role][domain].assign(role=role) for role in made]
        folder.write_samples(f"abstention_{domain}", pd.concat(tables, ignore_index=True))
    folder.update_state(abstention={"bins": 10, "domains": list(DOMAINS)}, status="complete")
    return folder, made


@pytest.fixture
def run(tmp_path):
    return abstention_run(tmp_path)


def test_every_domain_has_a_reliability_diagram_and_a_risk_coverage_curve(run):
    folder, made = run
    (view,) = abstention_views(read_runs([folder]))
    assert [caption.partition(":")[0] for _, caption in view.figures] == [
        "Reliability, in",
        "Risk and coverage, in",
        "Reliability, out of it",
        "Risk and coverage, out of it",
    ]
    own = made["run"]["in"]
    svg, caption = view.figures[1]
    assert f"this model: area {float(aurc(own['correct'], own['combined'])):.2f}" in caption
    told = re.findall(r"<title>this model, ([\d.]+) wrong when ([\d.]+) are answered</title>", str(svg))
    assert told[-1][1] == "1.00" and len(told) == 40


def test_the_reliability_diagram_holds_every_answer_once(run):
    folder, _ = run
    (view,) = abstention_views(read_runs([folder]))
    counts = re.findall(r"<title>this model, [\d.]+ right of (\d+) with confidence", str(view.figures[0][0]))
    assert sum(map(int, counts)) == 40


def test_where_certainty_was_not_asked_for_the_answers_own_probability_is_shown(tmp_path):
    folder, made = abstention_run(tmp_path, asked=False)
    (view,) = abstention_views(read_runs([folder]))
    own = made["run"]["in"]
    assert f"this model: area {float(aurc(own['correct'], own['predict_conf'])):.2f}" in view.figures[1][1]


def test_every_metric_is_defined_and_points_the_way_the_audit_says(run):
    _, made = run
    results, _ = abstention_results(made["run"])
    for result in results:
        entry = describe(f"abstention/{result.metric}")
        assert entry.definition.endswith(".") and entry.label[0].isupper() and "_" not in entry.label
        assert entry.better == result.better, result.metric
    labels = [describe(f"abstention/{r.metric}").label for r in results if ":" not in r.metric]
    assert len(set(labels)) == len(labels)
    assert describe("abstention/novelty").definition == ""


def test_the_page_shows_figures_numbers_and_definitions(run, tmp_path):
    folder, _ = run
    page = write_report([folder], tmp_path / "report.html").read_text(encoding="utf-8")
    assert '<section id="abstention"' in page and "Certainty and abstention" in page
    assert page.count("<figure>") == 4 and "Area under risk–coverage, both" in page
    (section,) = suite_sections(read_runs([folder]))
    assert next(block.title for block in section.blocks if ":" in block.title) == "in: answers"
