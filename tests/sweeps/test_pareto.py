from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demur.sweeps import dominators

COARSE = st.integers(0, 4).map(float)  # ties are what goes wrong
FINE = st.floats(-1e6, 1e6)


@st.composite
def clouds(draw: st.DrawFn) -> list[list[float]]:
    size = draw(st.integers(1, 3))
    number = draw(st.sampled_from([COARSE, FINE]))
    return draw(st.lists(st.lists(number, min_size=size, max_size=size), max_size=25))


def beats(a: list[float], b: list[float]) -> bool:
    return all(x <= y for x, y in zip(a, b, strict=True)) and any(x < y for x, y in zip(a, b, strict=True))


@given(clouds())
def test_dominators_are_those_of_brute_force(points: list[list[float]]) -> None:
    assert dominators(points) == [[i for i, a in enumerate(points) if beats(a, b)] for b in points]


@given(clouds())
def test_whatever_is_dominated_is_dominated_by_the_front(points: list[list[float]]) -> None:
    found = dominators(points)
    front = {i for i, by in enumerate(found) if not by}
    assert bool(front) == bool(points)
    assert all(front & set(by) for by in found if by)


def test_the_same_numbers_do_not_dominate_each_other() -> None:
    assert dominators([[1, 2], [1, 2], [1, 3]]) == [[], [], [0, 1]]


@pytest.mark.parametrize("bad", [[[math.nan, 1.0]], [[math.inf, 1.0]], [[1.0], [1.0, 2.0]]])
def test_points_that_cannot_be_compared_are_refused(bad: list[list[float]]) -> None:
    with pytest.raises(ValueError):
        dominators(bad)
