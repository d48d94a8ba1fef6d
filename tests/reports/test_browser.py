"""The report as a reader meets it: in a real browser, from a file."""

from __future__ import annotations

import json
import time
from itertools import pairwise

import pandas as pd
import pytest

from demur.reports import write_report
from reports.made_runs import AT_GOLD, COLLAPSED, OVER, REMEMBERS, SIZES, Maker, samples_of

HOSTILE = [
    "</script><script>window.hacked = 1</script>",
    '"><img src=x onerror="window.hacked = 1">',
    "<!-- <svg onload=window.hacked=1> 'quoted' \"twice\" `tick` ${1+1}",
    "שלום עולם, איפה נולדה הסופרת?",
    "Family: 👩‍👩‍👧 and \u202eright to left\u202c \u2028 line",
]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    maker = Maker(tmp_path_factory.mktemp("runs"), dict(SIZES, forget=60, retain=60, holdout=20))
    folders = [
        maker.run("ga", COLLAPSED),
        maker.run("grad_diff", OVER, unscored=3),
        maker.run("npo", REMEMBERS),
        maker.run("simnpo", AT_GOLD),
    ]
    roles = {"run": REMEMBERS, "before": AT_GOLD}
    frame = samples_of("forget", 60, roles)
    for i, text in enumerate(HOSTILE):
        for column in ("prompt", "truth", "generation"):
            frame.loc[frame.id == str(i), column] = text
    extra = maker.run("hostile", REMEMBERS | {"model_utility": None}, reference=None, before=AT_GOLD, samples=())
    extra.write_samples("tofu_forget", pd.DataFrame(frame))
    return write_report([*folders, extra], maker.root / "report.html")


@pytest.fixture
def page(browser, report):
    return browser(report)


def find_all(page, selector):
    return page.find_elements("css selector", selector)


def choose(page, control, value):
    page.execute_script(
        "const e = document.getElementById(arguments[0]); e.value = arguments[1];"
        "e.dispatchEvent(new Event(e.type === 'search' ? 'input' : 'change', {bubbles: true}))",
        control,
        value,
    )
    page.execute_async_script("setTimeout(arguments[arguments.length - 1], 250)")


def prompts(page):
    return [e.get_attribute("textContent") for e in find_all(page, ".q .prompt")]


def changes(page):
    return [e.get_attribute("textContent") for e in find_all(page, ".q .change")]


def test_it_opens_without_a_word_on_the_console_and_without_the_network(page, report):
    page.execute_async_script("setTimeout(arguments[0], 300)")
    assert page.get_log("browser") == []
    sent = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    asked = {m["params"]["request"]["url"] for m in sent if m["method"] == "Network.requestWillBeSent"}
    assert asked == {report.resolve().as_uri()}


def test_hostile_text_is_shown_and_does_nothing(page):
    choose(page, "run", "4")
    page.execute_script("document.getElementById('more').click()")
    page.execute_script("document.querySelectorAll('.q').forEach(e => { e.open = true; })")
    page.execute_async_script("setTimeout(arguments[0], 200)")
    assert page.execute_script("return window.hacked") is None
    assert not find_all(page, "#questions img") and not find_all(page, "#questions svg")
    assert set(HOSTILE) <= set(prompts(page))
    said = [e.get_attribute("textContent") for e in find_all(page, ".answer .said")]
    assert set(HOSTILE) <= set(said)
    assert page.get_log("browser") == []


def test_right_to_left_questions_run_right_to_left(page):
    choose(page, "q", "שלום")
    (prompt,) = find_all(page, ".q .prompt")
    assert page.execute_script("return getComputedStyle(arguments[0]).direction", prompt) == "rtl"


def order(page):
    return [e.text for e in find_all(page, "#headline tbody th")]


def click_heading(page, label):
    button = next(b for b in find_all(page, "#headline th button") if b.text.startswith(label))
    page.execute_script("arguments[0].click()", button)
    return page.execute_script("return arguments[0].closest('th').getAttribute('aria-sort')", button)


def test_headings_sort_up_down_and_back_with_missing_values_last(page):
    written = order(page)
    assert click_heading(page, "Model utility") == "ascending"
    up = order(page)
    assert (up[0], up[-1]) == ("ga", "hostile")
    assert click_heading(page, "Model utility") == "descending"
    down = order(page)
    assert (down[-2], down[-1]) == ("ga", "hostile")
    assert click_heading(page, "Model utility") == "none"
    assert order(page) == written


def test_p_values_sort_by_size_and_only_one_heading_is_sorted(page):
    click_heading(page, "Model utility")
    click_heading(page, "Forget quality")
    assert order(page)[0] == "ga"
    sorts = [e.get_attribute("aria-sort") for e in find_all(page, "#headline th[aria-sort]")]
    assert sorts.count("none") == len(sorts) - 1


def test_the_headings_can_be_reached_and_pressed_by_keyboard(page):
    from selenium.webdriver.common.keys import Keys

    button = find_all(page, "#headline th button")[1]
    page.execute_script("arguments[0].focus()", button)
    page.switch_to.active_element.send_keys(Keys.ENTER)
    assert page.execute_script("return arguments[0].closest('th').getAttribute('aria-sort')", button) == "ascending"


def count(page):
    return find_all(page, "#count")[0].text


def test_splits_filter_and_more_rows_come_on_demand(page):
    assert count(page).startswith("65 of ")
    assert len(prompts(page)) == 40
    page.execute_script("document.getElementById('more').click()")
    assert len(prompts(page)) == 65
    assert not find_all(page, "#more")[0].is_displayed()
    choose(page, "split", "2")
    assert count(page).startswith("100 of ")
    choose(page, "split", "")
    total = 65 + 60 + 100 + 117 + 20
    assert count(page).startswith(f"{total} of {total} questions")


def test_search_finds_words_anywhere_in_question_or_answers_in_any_case(page):
    choose(page, "q", "BAKERY vanterpool")
    found = prompts(page)
    assert found and all("Vanterpool" in text for text in found)
    choose(page, "q", "no such words anywhere")
    assert prompts(page) == [] and count(page).startswith("0 of ")
    choose(page, "q", "👩‍👩‍👧")
    assert len(prompts(page)) == 1


def test_a_run_filter_shows_that_run_and_its_own_before(page):
    choose(page, "run", "2")
    page.execute_script("document.querySelectorAll('.q')[1].open = true")
    page.execute_async_script("setTimeout(arguments[0], 100)")
    labels = [e.get_attribute("textContent") for e in find_all(page, ".q:nth-child(2) .who")]
    assert labels[0] == "True answer"
    assert labels[2:] == ["npo", "gold"] and labels[1].startswith("before")


def test_sorting_by_change_puts_the_largest_first(page):
    choose(page, "run", "2")
    choose(page, "order", "change")
    pairs = [[float(x) for x in text.split(" → ")] for text in changes(page)]
    gaps = [abs(after - before) for before, after in pairs]
    assert all(a >= b - 0.011 for a, b in pairwise(gaps))
    choose(page, "order", "most")
    after = [float(text.split(" → ")[1]) for text in changes(page)]
    assert after == sorted(after, reverse=True)
    choose(page, "order", "least")
    after = [float(text.split(" → ")[1]) for text in changes(page)]
    assert after == sorted(after)


def test_another_number_changes_what_stands_on_the_right(page):
    choose(page, "run", "0")
    first = changes(page)
    choose(page, "number", "6")
    assert changes(page) != first
    assert "loss before → after" in count(page)


def test_marked_words_are_those_of_the_truth_in_order(page):
    choose(page, "run", "2")
    page.execute_async_script("setTimeout(arguments[0], 150)")
    truth = find_all(page, ".answer.truth .said")[0].get_attribute("textContent")
    before = find_all(page, ".answer.before .said")[0]
    marks = [m.get_attribute("textContent") for m in before.find_elements("css selector", "mark")]
    position = 0
    assert marks
    for mark in marks:
        position = truth.index(mark, position) + len(mark)
    assert not find_all(page, ".answer.truth mark")


def test_plots_are_there_and_have_a_size(page):
    plots = find_all(page, "#plots svg")
    assert len(plots) == 3
    assert all(plot.size["width"] > 300 and plot.size["height"] > 200 for plot in plots)


@pytest.mark.parametrize("width", [1280, 390])
def test_labels_in_plots_do_not_overlap_on_any_screen(browser, report, width):
    page = browser(report, width=width, height=844)
    boxes = page.execute_script(
        "return [...document.querySelectorAll('#plots svg')].map(s => [...s.querySelectorAll('text.label')].map("
        "t => { const b = t.getBoundingClientRect(); return [b.left, b.top + 3, b.right, b.bottom - 3]; }))"
    )
    for plot in boxes:
        assert len(plot) >= 5
        for i, a in enumerate(plot):
            for b in plot[i + 1 :]:
                assert not (a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3])


@pytest.mark.parametrize("width", [1280, 768, 390, 320])
def test_nothing_but_tables_scrolls_sideways(browser, report, width):
    page = browser(report, width=width, height=844)
    page.execute_script("document.querySelectorAll('details').forEach(e => { e.open = true; })")
    page.execute_async_script("setTimeout(arguments[0], 200)")
    assert page.execute_script("return document.documentElement.scrollWidth") <= width


def test_the_dark_scheme_is_followed_and_paper_stays_light(browser, report):
    def paper(**how):
        page = browser(report, **how)
        return page.execute_script("return getComputedStyle(document.body).backgroundColor")

    assert paper() == "rgb(255, 255, 255)"
    assert paper(dark=True) != "rgb(255, 255, 255)"
    assert paper(dark=True, media="print") == "rgb(255, 255, 255)"


def test_printing_opens_what_belongs_on_paper_and_closes_it_again(page):
    closed = "return document.querySelectorAll('details[data-print]:not([open])').length"
    before = page.execute_script(closed)
    assert before > 0
    page.execute_script("window.dispatchEvent(new Event('beforeprint'))")
    assert page.execute_script(closed) == 0
    page.execute_script("window.dispatchEvent(new Event('afterprint'))")
    assert page.execute_script(closed) == before


def test_every_control_has_a_name_and_headings_do_not_skip_levels(page):
    assert page.execute_script(
        "return [...document.querySelectorAll('input,select')].every(e => e.labels.length === 1)"
    )
    levels = page.execute_script("return [...document.querySelectorAll('h1,h2,h3')].map(e => Number(e.tagName[1]))")
    assert levels[0] == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))


def test_fifteen_hundred_questions_are_searched_at_once(browser, tmp_path):
    maker = Maker(tmp_path, dict(SIZES, forget=500))
    page = browser(write_report([maker.run("npo", REMEMBERS, epochs=1)], tmp_path / "report.html"))
    started = time.monotonic()
    choose(page, "split", "")
    choose(page, "q", "lantern")
    assert prompts(page) and len(prompts(page)) <= 40
    print(f"filtered and searched 1,517 rows in {time.monotonic() - started:.2f} s, 0.5 s of it waiting")
