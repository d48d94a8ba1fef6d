from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET

import pytest

from demur.reports.axes import Scale
from demur.reports.plots import (
    DARK_VARIABLES,
    LIGHT_VARIABLES,
    Line,
    Mark,
    forgetting_plot,
    lines,
    marker,
    quality_plot,
    scatter,
    trajectory_plot,
)

SVG = "{http://www.w3.org/2000/svg}"
UNIT = Scale("x", 0.0, 1.0)


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg).iter(f"{SVG}text")]


def marks_of(svg: str) -> list[ET.Element]:
    return [e for e in ET.fromstring(svg).iter(f"{SVG}path") if "mark" in e.get("class", "").split()]


def test_a_plot_has_an_accessible_title_and_description():
    root = ET.fromstring(
        scatter([Mark("npo", 0.5, 0.5, series=0)], UNIT, UNIT, title="Over & under", description="It <b>")
    )
    title, description = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
    assert root.get("role") == "img"
    assert root.get("aria-labelledby") == f"{title.get('id')} {description.get('id')}"
    assert (title.text, description.text) == ("Over & under", "It <b>")


def test_ids_differ_between_plots_and_repeat_for_the_same_plot():
    def identify(label):
        svg = scatter([Mark(label, 0.5, 0.5, series=0)], UNIT, UNIT, title="t", description="d")
        return ET.fromstring(svg).find(f"{SVG}title").get("id")

    assert identify("a") == identify("a") != identify("b")


def test_every_mark_is_drawn_and_labelled_with_hostile_names_inert():
    names = ["before", "gold", "</svg><script>alert(1)</script>", 'a"b']
    svg = scatter([Mark(n, 0.4, 0.5, series=i) for i, n in enumerate(names)], UNIT, UNIT, title="t", description="d")
    assert len(marks_of(svg)) == 4
    assert set(names) <= set(texts(svg))
    assert "<script" not in svg


def test_a_mark_lies_where_its_scales_say_and_its_interval_around_it():
    svg = scatter([Mark("m", 0.5, 0.25, 0.4, 0.6, 0.2, 0.3, series=0)], UNIT, UNIT, title="t", description="d")
    across, up = [e.get("d") for e in ET.fromstring(svg).iter(f"{SVG}path") if "span" in e.get("class", "").split()]
    left, y, right = map(float, re.fullmatch(r"M([\d.]+) ([\d.]+)H([\d.]+)", across).groups())
    x, low, high = map(float, re.fullmatch(r"M([\d.]+) ([\d.]+)V([\d.]+)", up).groups())
    assert (left + right) / 2 == pytest.approx(x, abs=0.2)
    assert (low + high) / 2 == pytest.approx(y, abs=0.2)
    assert high < low


def test_p_values_below_the_axis_are_written_at_the_mark():
    marks = [
        Mark("ga", 0.0, -200.0, series=0),
        Mark("zero", 0.1, -math.inf, series=1),
        Mark("npo", 0.6, -0.4, series=2),
    ]
    shown = texts(quality_plot(marks))
    assert {"ga (1e-200)", "zero (0)", "npo", "p = 0.05", "1", "less"} <= set(shown)


def test_runs_differ_by_shape_and_by_colour():
    svg = scatter([Mark(str(i), 0.5, 0.5, series=i) for i in range(24)], UNIT, UNIT, title="t", description="d")
    looks = [(mark.get("class"), mark.get("d")) for mark in marks_of(svg)]
    assert len({colour for colour, _ in looks[:8]}) == len({shape for _, shape in looks[:8]}) == 8
    assert len(set(looks)) == 24


def test_a_runs_marker_in_the_legend_is_the_one_in_the_plot():
    for series in (0, 5, 9):
        (drawn,) = marks_of(scatter([Mark("m", 0.5, 0.5, series=series)], UNIT, UNIT, title="t", description="d"))
        (legend,) = ET.fromstring(f"<g>{marker(series)}</g>").iter("path")
        assert legend.get("class") in drawn.get("class")
        assert re.sub(r"[\d. -]+", "", legend.get("d")) == re.sub(r"[\d. -]+", "", drawn.get("d"))


def test_a_line_has_a_dot_for_every_point_named_by_its_epoch():
    line = Line("npo", [(0.9, 0.9), (0.8, 0.4), (0.8, 0.1)], 0, ["epoch 1", "epoch 2", "epoch 3"])
    svg = lines([line], UNIT, UNIT, title="t", description="d")
    assert [mark.find(f"{SVG}title").text for mark in marks_of(svg)] == ["npo, epoch 1", "npo, epoch 2", "npo, epoch 3"]


def test_trajectories_of_one_point_or_none_are_drawn_without_fuss():
    assert len(marks_of(trajectory_plot([Line("a", [(0.5, 0.5)]), Line("b", [], 1)], []))) == 1


def test_twenty_points_on_one_spot_keep_all_labels():
    svg = forgetting_plot([Mark(f"run {i}", 0.5, 0.5, series=i) for i in range(20)], "Forget probability")
    assert {f"run {i}" for i in range(20)} <= set(texts(svg))


def test_a_plot_alone_in_a_file_brings_its_colours_for_both_schemes():
    alone = scatter([], UNIT, UNIT, title="t", description="d", standalone=True)
    assert LIGHT_VARIABLES in alone and DARK_VARIABLES in alone and "prefers-color-scheme:dark" in alone
    assert "<style" not in scatter([], UNIT, UNIT, title="t", description="d")


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("variables", [LIGHT_VARIABLES, DARK_VARIABLES])
def test_text_and_marks_stand_out_from_the_paper_in_both_schemes(variables):
    colours = dict(re.findall(r"--([\w-]+):(#\w{6})", variables))
    assert contrast(colours["ink"], colours["paper"]) >= 7
    assert contrast(colours["quiet"], colours["paper"]) >= 4.5
    assert all(contrast(colours[f"run-{i}"], colours["paper"]) >= 3 for i in range(8))
