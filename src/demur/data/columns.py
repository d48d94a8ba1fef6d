"""From a list of rows to a `datasets.Dataset` that holds exactly what they said."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["dataset_from_rows"]

_EXACT = 2**53  # the largest range of whole numbers that float64 holds exactly


def dataset_from_rows(rows: Sequence[Mapping[str, Any]]) -> Dataset:
    """Build a data set from rows whose values are plain JSON data.

    The columns are the union of the rows' keys in order of appearance, null where a row lacks one. A column whose
    values have no common Arrow type (text in one row and chat messages in the next, objects with different keys) is
    stored as `datasets.Json`, so that every value comes back as it was.

    Args:
        rows: column → value; values are None, bool, int, float, str, or lists and dictionaries of these.

    Raises:
        UnicodeEncodeError: a text holds half of a surrogate pair, which UTF-8 cannot say.
    """
    from datasets import Dataset, Features, Json

    names = dict.fromkeys(name for row in rows for name in row)
    columns: dict[str, list[Any]] = {name: [row.get(name) for row in rows] for name in names}
    features = {name: _feature(values) for name, values in columns.items()}
    for name, feature in features.items():
        if isinstance(feature, Json):
            # `Json` takes a text that happens to be JSON for JSON ("5" would come back as 5): hand it JSON only.
            columns[name] = [None if v is None else json.dumps(v, ensure_ascii=False) for v in columns[name]]
    return Dataset.from_dict(columns, features=Features(features))


def _feature(values: Sequence[Any]) -> Any:
    """The narrowest feature that gives every value back unchanged."""
    from datasets import Json, List, Value

    present = [value for value in values if value is not None]
    kinds = {type(value) for value in present}
    if kinds <= {str}:
        return Value("string")
    if kinds == {bool}:
        return Value("bool")
    if kinds == {int} and all(-(2**63) <= value < 2**63 for value in present):
        return Value("int64")
    if float in kinds and kinds <= {int, float} and all(isinstance(v, float) or abs(v) <= _EXACT for v in present):
        return Value("float64")
    if kinds == {list}:
        item = _feature([item for value in present for item in value])
        return Json() if isinstance(item, Json) else List(item)
    if kinds == {dict} and _are_fields(present):
        fields = {key: _feature([value[key] for value in present]) for key in present[0]}
        return Json() if any(isinstance(field, Json) for field in fields.values()) else fields
    return Json()


def _are_fields(objects: Sequence[Mapping[str, Any]]) -> bool:
    """Whether all objects have the same keys, and Arrow can name fields so (its names end at a NUL)."""
    keys = objects[0].keys()
    return bool(keys) and all(other.keys() == keys for other in objects) and not any("\0" in key for key in keys)
