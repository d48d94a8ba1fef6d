"""Settings under the same names in Python, in recipe files and on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import pydantic
from pydantic import BaseModel, ConfigDict

from demur.errors import UsageError
from demur.files import read_settings
from demur.registry import nearest

__all__ = ["Settings"]


class Settings(BaseModel):
    """The settings of a run that changes a model; a field is a setting."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @classmethod
    def make(cls, recipe: str | Path | None = None, **given: Any) -> Self:
        """Settings from a recipe file, overridden by those given here; None counts as not given.

        Raises:
            UsageError: the recipe cannot be read, or a setting is unknown, missing or out of range.
        """
        values: dict[str, Any] = {}
        if recipe is not None:
            values = read_settings(recipe)
            values.pop("command", None)
        values.update({k: v for k, v in given.items() if v is not None})
        try:
            return cls(**values)
        except pydantic.ValidationError as error:
            # A misspelt name comes first: it may be what leaves another one missing.
            first = min(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
            name = ".".join(map(str, first["loc"]))
            raise UsageError(f"setting {name!r}: {first['msg']}{cls._hint(first)}") from None

    @classmethod
    def _hint(cls, problem: Any) -> str:
        name = str(problem["loc"][0])
        if problem["type"] == "extra_forbidden":
            return f"; {nearest(name, cls.model_fields)}"
        if problem["type"] == "missing":
            return f": pass {'MODEL' if name == 'model' else f'--{name}'}, or a recipe that has it"
        return f", not {problem['input']!r}"
