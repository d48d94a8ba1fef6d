from __future__ import annotations

import json
import re

import pytest

from demur.reports import describe, read_runs, write_report
from demur.reports.removal_view import removal_data, removal_views
from demur.reports.suite_sections import main_models, suite_sections
from demur.runs import Result
from reports.made_runs import AT_GOLD
from reports.removal_runs import FACTS, KNOWN, STEPS, removal_run


@pytest.fixture
def folder(tmp_path):
    return removal_run(tmp_path)


def page_of(tmp_path, *folders):
    return write_report(folders, tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_verdict_stands_with_its_claims_and_evidence(folder):
    (view,) = removal_views(read_runs([folder]))
    assert (view.outcome, view.tone) == ("suppression", "bad")
    assert [claim["answer"] for claim in view.claims] == ["forgotten", "suppression"]
    relearn = next(row for row in view.rows if row.attack == "relearn")
    assert relearn.known == ["0.10", "0.01", "0.95"]
    assert (relearn.recovery.value, relearn.recovery.detail) == ("0.63", "[0.53, 0.73]")


def test_curves_have_a_line_a_model_and_a_value_at_every_point(folder):
    (view,) = removal_views(read_runs([folder]))
    svg, caption = view.figures[0]
    told = re.findall(r"<title>(this model|control|before), step (\d+): ([\d.]+)</title>", str(svg))
    assert [(m, int(s)) for m, s, _ in told if m == "this model"] == [("this model", s) for s in STEPS]
    assert {m for m, _, _ in told} == {"this model", "control", "before"}
    assert "Learning rate 0.0005" in caption


def test_every_number_opens_to_the_facts_behind_it(folder):
    (data,) = removal_data(read_runs([folder]))
    assert [fact[0] for fact in data["facts"]] == [fact for fact, _, _ in FACTS]
    assert set(data["attacks"]) == {"relearn", "int4"}
    assert data["attacks"]["relearn"][2] == [2, max(STEPS.values()), KNOWN["reference"], KNOWN["before"]]


def test_a_page_about_removal_alone_has_no_empty_parts(folder, tmp_path):
    page = page_of(tmp_path, folder)
    assert 'id="removal"' in page and "Relearning, other facts" in page
    for part in ("verdict", "numbers", "plots", "questions", "glossary"):
        assert f'<section id="{part}"' not in page and f'href="#{part}"' not in page
    assert 'href="#removal"' in page and "All measurements" in page


def test_a_run_of_both_suites_has_both_parts_and_does_not_mix_their_numbers(maker, tmp_path):
    both = maker.run("npo", AT_GOLD)
    extra = removal_run(tmp_path, "other")
    both.add_results([Result("npo", "removal", "recovery_relearn", 0.6, 0.5, 0.7, 6, better="lower")])
    both.update_state(removal=extra.state["removal"])
    evidence = read_runs([both])
    assert not any("/" in metric for model in main_models(evidence) for metric in model.results)
    (section,) = suite_sections(evidence)
    assert [row.label for block in section.blocks for row in block.rows] == ["Relearning, other facts"]
    page = page_of(tmp_path, both)
    assert '<section id="verdict"' in page and '<section id="removal"' in page


def test_a_suite_that_the_page_does_not_know_is_shown_with_its_numbers(maker, tmp_path):
    folder = maker.run("npo", AT_GOLD)
    folder.add_results([Result("npo", "novel", "some_score", 0.25, 0.2, 0.3, 50)])
    (section,) = suite_sections(read_runs([folder]))
    (row,) = (row for block in section.blocks for row in block.rows)
    assert (section.title, row.label, row.cells[0].value) == ("novel", "some score", "0.25")
    assert '<section id="novel"' in page_of(tmp_path, folder)


def test_what_a_suppressing_method_does_not_claim_is_greyed(tmp_path):
    folder = removal_run(tmp_path, "idk", intention="suppression", control=False, guard="g")
    (view,) = removal_views(read_runs([folder]))
    assert all(row.greyed for row in view.rows)
    assert len(view.remarks) == 3
    assert page_of(tmp_path, folder).count('class="greyed"') == 2


@pytest.mark.parametrize(
    "metric", ["recovery_int4", "knowledge_leak_8", "lens_2", "utility", "recovery_prompt_few_shot"]
)
def test_each_metric_of_the_suite_is_defined(metric):
    known = describe(f"removal/{metric}")
    assert known.definition and known.group != "Other" and "removal/" not in known.label


def test_texts_of_the_facts_cannot_leave_their_place(tmp_path):
    folder = removal_run(tmp_path)
    facts = folder.samples("removal_facts")
    facts.loc[0, "prompt"] = "</script><script>window.hacked = 1</script>"
    folder.write_samples("removal_facts", facts)
    page = page_of(tmp_path, folder)
    assert "</script><script>window" not in page
    data = re.search(r'<script type="application/json" id="attacks">(.*?)</script>', page, re.S)
    assert json.loads(data[1])[0]["facts"][0][1].startswith("</script>")


def test_a_line_opens_its_facts_in_a_browser(browser, folder, tmp_path):
    path = write_report([folder], tmp_path / "report.html")
    page = browser(path)
    button = page.find_element("css selector", 'button[data-attack="relearn"]')
    page.execute_script("arguments[0].click()", button)
    cells = [
        e.get_attribute("textContent")
        for e in page.find_elements("css selector", ".facts-known tbody tr:first-child td")
    ]
    assert cells == ["What is fact 0?", "It is answer 0.", "0.62", "0.01", "0.95"]
    assert button.get_attribute("aria-expanded") == "true"
    page.execute_script("arguments[0].click()", button)
    assert not page.find_elements("css selector", ".facts-known")
    assert page.get_log("browser") == []
    page = browser(path, width=360)
    wide = "return document.documentElement.scrollWidth <= window.innerWidth"
    assert page.execute_script(wide), "a narrow page does not scroll sideways"
