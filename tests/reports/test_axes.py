from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demur.reports.axes import BAND, SHAPES, Box, Scale, place_label, shape_path, text_width


def test_a_linear_scale_puts_its_ends_at_the_ends():
    scale = Scale.around("x", [0.2, 0.7])
    assert (scale.place(0.0), scale.place(1.0), scale.place(0.25)) == (0.0, 1.0, 0.25)
    assert [text for _, text in scale.ticks()] == ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]


def test_a_linear_scale_widens_to_hold_its_values():
    scale = Scale.around("x", [-3.0, 40.0, math.inf])
    assert (scale.low, scale.high) == (-3.0, 40.0)


def test_negative_ticks_carry_a_true_minus():
    assert Scale("x", -100.0, 100.0).ticks()[0] == (-100.0, "−100")


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_lie_on_the_axis_are_few_and_differ(low, width):
    scale = Scale("x", low, low + width)
    ticks = scale.ticks()
    assert 1 <= len(ticks) <= 8
    assert all(
        low - 1e-6 * (abs(low) + width) <= value <= low + width + 1e-6 * (abs(low) + width) for value, _ in ticks
    )
    assert len({text for _, text in ticks}) == len(ticks)


def test_a_p_value_axis_ends_at_one_and_marks_powers_of_ten():
    scale = Scale.powers("p", [-24.4, -0.4])
    ticks = dict(scale.ticks())
    assert ticks[0.0] == "1"
    assert scale.place(0.0) == 1.0
    assert not scale.floor
    assert all(text == f"1e{value:.0f}" for value, text in ticks.items() if value)


def test_p_values_below_the_axis_and_zero_lie_in_the_band_below_it():
    scale = Scale.powers("p", [-200.0, -math.inf, -0.4])
    assert scale.floor
    assert scale.place(-200.0) == scale.place(-math.inf) == BAND / 2
    assert scale.place(scale.low) == pytest.approx(BAND)
    assert scale.cuts(-200.0) and scale.cuts(-math.inf) and not scale.cuts(scale.low)


def test_a_p_value_axis_of_nothing_but_zeros_still_stands():
    scale = Scale.powers("p", [-math.inf])
    assert scale.place(-math.inf) == BAND / 2
    assert len(scale.ticks()) > 1


def test_a_nan_has_no_place():
    with pytest.raises(ValueError, match="NaN"):
        Scale("x", 0.0, 1.0).place(math.nan)


@given(st.lists(st.tuples(st.floats(0, 400), st.floats(0, 300)), min_size=1, max_size=16))
def test_labels_never_overlap_each_other_or_leave_the_plot(points):
    within = Box(0, 0, 400, 300)
    taken: list[Box] = []
    for x, y in points:
        box, _ = place_label(x, y, 70, 16, taken, within)
        assert not any(box.meets(other) for other in taken)
        assert box.left >= 0 and box.top >= 0 and box.right <= 400 and box.bottom <= 300
        taken.append(box)


def test_a_label_that_fits_nowhere_is_still_placed():
    within = Box(0, 0, 60, 20)
    box, _ = place_label(30, 10, 50, 16, [within], within)
    assert box.right - box.left == 50


def test_wider_texts_are_taken_for_wider():
    assert text_width("www", 10) > text_width("ill", 10)
    assert text_width("simnpo", 20) == pytest.approx(2 * text_width("simnpo", 10))


@pytest.mark.parametrize("shape", [*SHAPES, "star"])
def test_every_shape_is_a_closed_path_about_its_centre(shape):
    path = shape_path(shape, 100.0, 50.0, 5.0)
    assert path.startswith("M") and path.endswith("z")
    assert "nan" not in path
