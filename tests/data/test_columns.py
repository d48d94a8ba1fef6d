from __future__ import annotations

from typing import Any

import pytest
from datasets import Json, Value
from hypothesis import given
from hypothesis import strategies as st

from demur.data import dataset_from_rows

WHOLE = st.integers(-(2**63), 2**63 - 1)
SCALARS = st.none() | st.booleans() | WHOLE | st.text()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=8
)


def same(a: Any, b: Any) -> bool:
    """Equality that tells 1, 1.0 and True apart."""
    return repr(a) == repr(b)


@given(st.lists(VALUES, min_size=1, max_size=6))
def test_every_value_comes_back_as_it_went_in_whatever_its_neighbours_are(values: list[Any]) -> None:
    dataset = dataset_from_rows([{"id": str(i), "x": value} for i, value in enumerate(values)])
    for row, value in zip(dataset, values, strict=True):
        assert row["x"] == value
        assert same(sort_keys(row["x"]), sort_keys(value))


def sort_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: sort_keys(value[key]) for key in sorted(value)}
    return [sort_keys(item) for item in value] if isinstance(value, list) else value


@given(st.lists(st.floats(allow_nan=False) | st.none(), min_size=1, max_size=6))
def test_numbers_come_back_exactly(values: list[float | None]) -> None:
    assert list(dataset_from_rows([{"x": value} for value in values])["x"]) == values


def test_a_text_that_looks_like_json_stays_text_in_a_mixed_column() -> None:
    rows = [{"prompt": "5"}, {"prompt": [{"role": "user", "content": "5"}]}, {"prompt": "null"}, {"prompt": '{"a": 1}'}]
    dataset = dataset_from_rows(rows)
    assert isinstance(dataset.features["prompt"], Json)
    assert list(dataset) == rows


def test_uniform_columns_have_plain_types() -> None:
    dataset = dataset_from_rows([{"t": "a", "i": 1, "f": 1, "l": ["x"]}, {"t": None, "i": 2, "f": 0.5, "l": []}])
    assert dataset.features["t"] == Value("string")
    assert dataset.features["i"] == Value("int64")
    assert dataset.features["f"] == Value("float64")
    assert not any(isinstance(feature, Json) for feature in dataset.features.values())


def test_columns_are_the_union_over_all_rows() -> None:
    dataset = dataset_from_rows([{"a": "1"}, {"b": "2"}, {"a": "3", "c": ["4"]}])
    assert dataset.column_names == ["a", "b", "c"]
    assert dataset["b"][:] == [None, "2", None]


def test_objects_with_different_keys_do_not_gain_each_others_keys() -> None:
    rows = [{"meta": {"source": "x"}}, {"meta": {"page": 3}}, {"meta": {}}]
    assert list(dataset_from_rows(rows)) == rows


def test_names_that_arrow_cannot_hold_survive_within_an_object() -> None:
    rows = [{"meta": {"a\0b": "x"}}]
    assert list(dataset_from_rows(rows)) == rows


def test_whole_numbers_beyond_what_a_float_holds_are_not_rounded() -> None:
    rows = [{"x": 2**53 + 1}, {"x": 0.5}]
    assert [row["x"] for row in dataset_from_rows(rows)] == [2**53 + 1, 0.5]


def test_half_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(UnicodeEncodeError):
        dataset_from_rows([{"x": "\ud800"}])
