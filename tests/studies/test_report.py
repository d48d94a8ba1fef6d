from __future__ import annotations

from pathlib import Path

import pytest

from demur.errors import UsageError
from demur.studies import Claim, PartResult, StudyResult, read_results, results_page, studies

ROOT = Path(__file__).parents[2]


def result(*parts: PartResult) -> StudyResult:
    return StudyResult(study="toy", paper="0000.00000", versions={"torch": "9"}, parts=list(parts))


HELD = Claim(text="a | b", measured={2: 0.123456, 1: 20}, threshold="> 0", baselines={"other": {1: 3.0, 2: 4.0}})
BROKEN = Claim(text="c", measured={1: 5.0}, threshold="< 1", kind="ours")


def test_the_page_shows_every_claim_with_its_seeds_in_order():
    part = PartResult(name="p", summary="A part.", seeds=[1, 2], seconds={1: 1.0, 2: 8.6}, claims=[HELD, BROKEN])
    page = results_page([result(part)])
    assert "| a \\| b | 20 0.123 | > 0 | yes | other: 3–4 |" in page
    assert "| c *(ours)* | 5 | < 1 | **no** | – |" in page
    assert "does not hold | 1 of 2" in page


def test_a_part_that_was_not_measured_says_why_and_never_that_it_holds():
    part = PartResult(name="p", summary="A part.", seeds=[1], problem="the data set is absent")
    page = results_page([result(part)])
    assert "Not measured: the data set is absent." in page
    assert "| not measured | 0 of 0 |" in page and "holds |" not in page.replace("claims that hold |", "")


@pytest.mark.parametrize("content", ["", "{}", '{"study": "x"}', "[1, 2]"])
def test_a_file_that_is_no_result_is_named(tmp_path: Path, content: str):
    (tmp_path / "bad.json").write_text(content)
    with pytest.raises(UsageError, match=r"bad\.json is no study result"):
        read_results(tmp_path)


def test_a_folder_without_results_is_refused(tmp_path: Path):
    with pytest.raises(UsageError, match="holds no study results"):
        read_results(tmp_path)


def test_the_committed_page_is_made_from_the_committed_results():
    results = read_results(ROOT / "results" / "studies")
    committed = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert committed == results_page(results), "run `demur studies report`"


def test_every_study_has_a_committed_result():
    assert [result.study for result in read_results(ROOT / "results" / "studies")] == studies.names()
