from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from demur.editing import EditSettings
from demur.errors import UsageError

GIVEN: dict[str, Any] = {
    "task": "tabular",
    "model": "folder",
    "data": "table.csv",
    "target": "outcome",
    "forget": "random:10",
    "method": "ft",
}


def test_what_is_given_stands_over_the_recipe(tmp_path: Path) -> None:
    recipe = tmp_path / "config.yaml"
    recipe.write_text("command: forget\ntask: tabular\nmodel: a\ndata: b\nforget: class:1\nmethod: ssd\nseed: 4\n")
    made = EditSettings.make(recipe, model="mine", test=None)
    assert (made.model, made.data, made.seed, made.test, made.options) == ("mine", "b", 4, None, {})


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"task": "images"}, "setting 'task': Input should be 'image-classification' or 'tabular', not 'images'"),
        ({"method": None}, "setting 'method': Field required: pass --method, or a recipe that has it"),
        ({"model": None}, "setting 'model': Field required: pass MODEL"),
        ({"seed": -1}, "setting 'seed': Input should be greater than or equal to 0"),
        ({"methd": "ft"}, "setting 'methd': Extra inputs are not permitted; did you mean method"),
    ],
)
def test_what_is_wrong_is_one_sentence(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        EditSettings.make(**{**GIVEN, **changed})
