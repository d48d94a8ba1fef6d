from __future__ import annotations

import os
import re
from html.parser import HTMLParser

import pytest

from demur.errors import UsageError
from demur.reports import write_report
from demur.runs import RunFolder
from reports.made_runs import AT_GOLD, COLLAPSED, OVER, REMEMBERS, SIZES, Maker


class Page(HTMLParser):
    """Tags with their attributes, and the text outside of scripts and styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._silent = 0
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._silent += tag in ("script", "style")

    def handle_endtag(self, tag):
        self._silent -= tag in ("script", "style")

    def handle_data(self, data):
        if not self._silent:
            self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def page(maker, tmp_path):
    def make(*folders: RunFolder) -> Page:
        return Page(write_report(folders, tmp_path / "report.html").read_text(encoding="utf-8"))

    return make


def test_the_report_refers_to_nothing_outside_itself(maker, page):
    made = page(maker.run("ga", COLLAPSED), maker.run("npo", REMEMBERS))
    assert not made.all("link") and not made.all("img") and not made.all("iframe")
    for tag, attributes in made.tags:
        assert "src" not in attributes, tag
        assert (attributes.get("href") or "#").startswith("#")
    html = (maker.root / "report.html").read_text(encoding="utf-8")
    assert set(re.findall(r"https?://[^\s\"'<)]+", html)) <= {"http://www.w3.org/2000/svg"}
    policy = next(m["content"] for m in made.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")


def test_sections_come_in_the_readers_order(maker, page):
    ids = [a.get("id") for a in page(maker.run("npo", REMEMBERS)).all("section")]
    assert ids == ["verdict", "numbers", "plots", "questions", "settings", "glossary"]


def test_ids_are_unique_and_links_lead_somewhere(maker, page):
    made = page(maker.run("ga", COLLAPSED), maker.run("npo", REMEMBERS))
    ids = [a["id"] for _, a in made.tags if "id" in a]
    assert len(set(ids)) == len(ids)
    assert all(a["href"][1:] in ids for a in made.all("a"))


def test_the_verdicts_stand_in_plain_words(maker, page):
    text = page(maker.run("ga", COLLAPSED), maker.run("npo", REMEMBERS), maker.run("simnpo", AT_GOLD)).text
    assert "forgot by collapsing: utility 0.00 (0.62 before)" in text
    assert "still remembers" in text and "forgets to gold level and keeps its utility" in text
    assert "p\u00a0=\u00a01e-200" in text


def test_missing_reference_samples_trajectory_and_values_are_said_and_not_drawn(maker, page):
    values = AT_GOLD | {"model_utility": None, "privleak": None}
    notes = {"run": {"privleak": "no holdout rows were given"}}
    made = page(maker.run("npo", values, reference=None, before=None, samples=(), epochs=0, notes=notes))
    assert "not measured" in made.text and "no holdout rows were given" in made.text
    assert "needs a gold model: audit with --reference" in made.text
    assert "hold no samples" in made.text
    assert "There is nothing to plot" in made.text
    assert not made.all("svg")


def test_many_or_long_names_become_numbers_with_a_legend(maker, page):
    few = page(maker.run("ga", COLLAPSED), maker.run("npo", REMEMBERS))
    assert not [a for a in few.all("ul") if a.get("class") == "legend"]
    made = page(maker.run("a-name-that-is-far-too-long-for-a-plot", COLLAPSED), maker.run("short", AT_GOLD))
    assert [a for a in made.all("ul") if a.get("class") == "legend"]
    html = (maker.root / "report.html").read_text(encoding="utf-8")
    labels = re.findall(r'<text class="label"[^>]*>([^<]*)</text>', html)
    assert {"1", "2", "before", "gold"} <= set(labels)
    assert not any("too-long" in label for label in labels)


def test_the_caption_mentions_the_band_only_where_there_is_one(maker, page):
    assert "band at the foot" in page(maker.run("ga", COLLAPSED)).text
    assert "band at the foot" not in page(maker.run("simnpo", AT_GOLD)).text


def test_unscored_samples_are_counted(maker, page):
    assert "3\u00a0unscored" in page(maker.run("npo", REMEMBERS, unscored=3)).text


def test_hostile_names_and_settings_are_escaped(maker, page):
    hostile = '"><img src=x onerror=alert(1)>'
    folder = maker.run("npo", REMEMBERS, config={"forget": hostile, "objective_options": {"</pre>": "</script>"}})
    folder.log("audit", suite="tofu", role="run", model=hostile, notes={"forget_quality": hostile})
    made = page(folder)
    assert not made.all("img")
    assert hostile in made.text


def test_a_run_folders_name_may_be_anything(maker, page):
    made = page(maker.run("<b>x & y</b>", REMEMBERS), maker.run("normal", AT_GOLD))
    assert not made.all("b")
    assert "<b>x & y</b>" in made.text


def test_the_script_never_builds_html_from_text():
    from demur.reports.page import _TEMPLATES

    script = (_TEMPLATES / "report.js").read_text(encoding="utf-8")
    for risky in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(", "fetch("):
        assert risky not in script


def test_six_runs_of_three_hundred_rows_stay_under_five_megabytes(tmp_path):
    maker = Maker(tmp_path, dict.fromkeys(SIZES, 300))
    values = [COLLAPSED, OVER, REMEMBERS, AT_GOLD, REMEMBERS | {"model_utility": 0.55}, OVER | {"model_utility": 0.4}]
    folders = [maker.run(f"run {i}", v, epochs=1) for i, v in enumerate(values)]
    assert write_report(folders, tmp_path / "report.html").stat().st_size < 5_000_000


def test_an_unwritable_place_is_refused_and_nothing_is_left(maker, tmp_path):
    folder = maker.run("npo", REMEMBERS)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write the report"):
        write_report([folder], tmp_path / "file" / "report.html")
    with pytest.raises(UsageError, match="is a folder"):
        write_report([folder], tmp_path)


def test_a_failed_report_leaves_the_earlier_one_alone(maker, tmp_path, monkeypatch):
    folder = maker.run("npo", REMEMBERS)
    out = write_report([folder], tmp_path / "report.html")
    earlier = out.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UsageError, match="No space left"):
        write_report([folder], out)
    assert out.read_bytes() == earlier
    assert not list(tmp_path.glob(".report*"))


def test_a_report_that_was_asked_for_too_early_writes_nothing(tmp_path):
    with pytest.raises(UsageError, match="demur audit"):
        write_report([RunFolder.create(tmp_path / "run", {})], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()
