"""Answers that are the same however they are written, and answers that only look the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demur.data.answer_checker import check_answer, extract_answer, normalise_answer, same_answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("First \\boxed{1}, no, \\boxed{\\frac{1}{2}} it is", "\\frac{1}{2}"),
        ("3 + 4 is 7\n#### 7", "7"),
        ("The answer is 42. Surely.", "42"),
        ("Final answer: 3.5", "3.5"),
        ("Oda Marsh", "Oda Marsh"),
        ("\\boxed{1", "\\boxed{1"),
    ],
)
def test_the_final_answer_is_found(text: str, answer: str) -> None:
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("1/2", "0.5"),
        ("\\frac12", "0.5"),
        ("\\dfrac{1}{2}", "1/2"),
        ("1,000", "1000"),
        ("$1,000.50", "1000.5"),
        ("{1, 2}", "\\{2,1\\}"),
        ("{100,200}", "{200,100}"),
        ("[0, 1/2)", "[0,0.5)"),
        ("x(x+1)", "x^2 + x"),
        ("2xy", "2yx"),
        ("\\sqrt{8}", "2\\sqrt2"),
        ("\\pi/2", "pi / 2"),
        ("50%", "1/2"),
        ("x = 5", "5"),
        ("007", "7"),
        ("\\text{Oda Marsh}", "oda marsh."),
    ],
)
def test_the_same_answer_otherwise_written(first: str, second: str) -> None:
    assert check_answer(first, second) and check_answer(second, first)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("42", "43"),
        ("no", "on"),
        ("(1,2)", "(2,1)"),
        ("{1,1}", "{1}"),
        ("[0,1)", "(0,1]"),
        ("x", "y"),
        ("3 apples", "3 pears"),
        ("1/0", "2"),
        ("", "0"),
        ("", ""),
        ("__import__('os')", "1"),
    ],
)
def test_another_answer(first: str, second: str) -> None:
    assert not check_answer(first, second) and not check_answer(second, first)


@pytest.mark.parametrize("huge", ["9^9^9^9", "((9^99)^99)^99", "(" * 150 + "1" + ")" * 150, "9" * 5000 + "+1"])
def test_what_would_take_too_long_is_not_equal(huge: str) -> None:
    assert not same_answer(huge, "1")


@given(st.integers(-(10**6), 10**6), st.integers(1, 10**4))
def test_a_fraction_is_itself_only(a: int, b: int) -> None:
    assert same_answer(f"\\frac{{{a}}}{{{b}}}", f"{3 * a}/{3 * b}")
    assert not same_answer(f"{a}/{b}", f"{a * 10**6 + 1}/{b * 10**6}")


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_text_is_compared_without_an_error_and_both_ways(first: str, second: str) -> None:
    assert check_answer(first, second) == check_answer(second, first)
    once = normalise_answer(first)
    assert isinstance(once, str)
