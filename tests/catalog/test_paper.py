from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from demur.catalog import Paper, find_papers, papers

DOCS = Path(__file__).parents[2] / "docs" / "papers.md"
BUILT = [paper for paper in papers() if paper.status == "built"]
PLANNED = {
    "slug": "some-paper",
    "title": "Some paper",
    "arxiv": "2404.05868",
    "year": 2024,
    "rooms": ["objectives"],
    "summary": "Does something.",
    "status": "planned",
}


def test_there_are_67_papers_each_once():
    assert len(papers()) == 67
    for field in ("slug", "title", "arxiv", "summary"):
        assert len({getattr(paper, field) for paper in papers()}) == 67, field


@pytest.mark.parametrize("paper", papers(), ids=lambda paper: paper.slug)
def test_a_record_is_in_order(paper: Paper):
    assert re.fullmatch(r"\d{4}\.\d{4,5}", paper.arxiv)
    assert paper.year == 2000 + int(paper.arxiv[:2])
    assert 1 <= int(paper.arxiv[2:4]) <= 12
    assert paper.summary.endswith(".") and paper.summary.count(". ") == 0, "one sentence"
    assert len(paper.rooms) == len(set(paper.rooms))


def test_records_are_sorted_by_slug():
    slugs = [paper.slug for paper in papers()]
    assert slugs == sorted(slugs)


def test_npo_is_built():
    assert "npo" in {paper.slug for paper in BUILT}


@pytest.mark.parametrize("paper", BUILT, ids=lambda paper: paper.slug)
def test_what_a_built_paper_names_exists(paper: Paper):
    from demur.objectives import objectives
    from demur.studies import studies

    for entry in paper.entry_points:
        kind, name = entry.split(":", 1)
        if kind == "objective":
            objectives.get(name)
        elif kind == "command":
            importlib.import_module(f"demur.cli.{name}")
        else:
            module, _, attribute = name.rpartition(".")
            getattr(importlib.import_module(module), attribute)
    assert studies.get(paper.study).facts["paper"] == paper.arxiv


def test_the_documentation_has_a_section_for_every_built_paper_and_no_other():
    sections = re.findall(r"^## `([a-z0-9-]+)`", DOCS.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert sorted(sections) == [paper.slug for paper in BUILT]


def test_every_registered_study_belongs_to_a_built_paper():
    from demur.studies import studies

    of_no_paper = {"classifier-unlearning-metrics"}  # what papers on classifiers measure by, gathered from many
    assert set(studies.names()) - of_no_paper == {paper.study for paper in BUILT}


@pytest.mark.parametrize(
    "change",
    [
        {"status": "built"},
        {"status": "built", "study": "some-paper"},
        {"study": "some-paper"},
        {"entry_points": ["objective:npo"]},
        {"arxiv": "240.5868"},
        {"rooms": ["kitchen"]},
        {"rooms": []},
        {"status": "built", "study": "some-paper", "entry_points": ["npo"]},
        {"colour": "green"},
    ],
    ids=str,
)
def test_a_record_that_contradicts_itself_is_refused(change: dict[str, object]):
    Paper.model_validate(PLANNED)
    with pytest.raises(ValidationError):
        Paper.model_validate({**PLANNED, **change})


def test_an_empty_query_finds_every_paper():
    assert find_papers("") == papers()


def test_search_ignores_case_and_needs_every_word():
    assert find_papers("NEGATIVE preference OPTIMIZATION") == find_papers("negative PREFERENCE optimization")
    assert "npo" in {paper.slug for paper in find_papers("Negative optimization")}
    assert find_papers("negative zzzz") == []


@pytest.mark.parametrize("paper", papers(), ids=lambda paper: paper.slug)
def test_a_paper_is_the_first_answer_to_its_slug_its_id_and_its_title(paper: Paper):
    for query in (paper.slug, paper.arxiv, paper.title):
        assert find_papers(query)[0] == paper, query


def test_entry_points_are_searched():
    assert find_papers("simnpo")[0].slug == "npo"


def test_a_word_in_the_title_counts_more_than_one_in_the_summary():
    found = find_papers("contrastive")
    in_title = [i for i, paper in enumerate(found) if "contrastive" in (paper.title + paper.slug).lower()]
    only_summary = [i for i, paper in enumerate(found) if i not in in_title]
    assert in_title and only_summary and max(in_title) < min(only_summary)
