"""What a sweep is to try: the same names in Python, in recipe files and on the command line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Self

import pydantic
from pydantic import BaseModel, ConfigDict, Field, field_validator

from demur.errors import UsageError
from demur.files import read_settings
from demur.registry import nearest

__all__ = ["AuditSettings", "Measures", "SweepSettings"]

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class AuditSettings(BaseModel):
    """How every trial is audited, as for `demur audit`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    suite: str = Field("tofu", description="what to measure")
    reference: str | None = Field(None, description="gold model that never saw the forget rows")
    rows: dict[str, str] = Field(default_factory=dict, description="rows of the suite's sets by name")
    options: dict[str, Any] = Field(default_factory=dict, description="settings of the suite by name")


class Measures(BaseModel):
    """The metrics that trials are compared by; None leaves one out."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    forgetting: str = "forget_probability"
    utility: str | None = "model_utility"
    resistance: str | None = "relearn_recovery"


class SweepSettings(BaseModel):
    """Settings of `demur sweep`.

    Attributes:
        settings: what all runs have in common, as for `demur forget`.
        objectives: the objectives to try.
        grid: setting, or OBJECTIVE.OPTION, to the values to try.
        seeds: seeds of every configuration; the first one is run first.
        samples: so many configurations drawn from the grid, in place of all.
        sample_seed: decides which.
        audit: how every trial is audited.
        attack: options of the relearning attack that measures resistance; None leaves it out.
        measures: the metrics that configurations are compared by.
        budget: wall-clock time of the whole sweep, for instance "90m" or "2h".
        max_runs: the most trials of the whole sweep.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    settings: dict[str, Any]
    objectives: list[str] = Field(min_length=1)
    grid: dict[str, list[Any]] = Field(default_factory=dict)
    seeds: list[int] = Field(default=[0], min_length=1)
    samples: int | None = Field(None, ge=1)
    sample_seed: int = Field(0, ge=0)
    audit: AuditSettings = Field(default_factory=lambda: AuditSettings.model_validate({}))
    attack: dict[str, Any] | None = Field(default_factory=dict)
    measures: Measures = Measures()
    budget: str | None = None
    max_runs: int | None = Field(None, ge=1)

    @field_validator("objectives", "seeds")
    @classmethod
    def _once(cls, values: list[Any]) -> list[Any]:
        return list(dict.fromkeys(values))

    @field_validator("grid")
    @classmethod
    def _not_empty(cls, grid: dict[str, list[Any]]) -> dict[str, list[Any]]:
        for name, values in grid.items():
            if not values:
                raise ValueError(f"{name!r} has no values")
        return grid

    @classmethod
    def make(cls, recipe: str | Path | None = None, **given: Any) -> Self:
        """Settings from a recipe file, overridden by those given here; None counts as not given.

        What is given under `settings`, `audit` and `grid` is merged with the recipe's; other things replace it.

        Raises:
            UsageError: the recipe cannot be read, or a setting is unknown, missing or out of range.
        """
        values = read_settings(recipe) if recipe is not None else {}
        for name, value in given.items():
            old = values.get(name)
            if isinstance(value, dict):
                kept = {k: v for k, v in value.items() if v is not None}
                if kept or old is None:
                    values[name] = {**(old if isinstance(old, dict) else {}), **kept}
            elif value is not None:
                values[name] = value
        try:
            made = cls(**values)
        except pydantic.ValidationError as error:
            first = min(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
            name = ".".join(map(str, first["loc"]))
            hint = ""
            if first["type"] == "extra_forbidden":
                hint = f"; {nearest(str(first['loc'][0]), cls.model_fields)}"
            elif first["type"] != "missing":
                hint = f", not {first['input']!r}"
            raise UsageError(f"sweep setting {name!r}: {first['msg'].removeprefix('Value error, ')}{hint}") from None
        made.seconds()
        return made

    def seconds(self) -> float | None:
        """The budget in seconds; None without one.

        Raises:
            UsageError: it is no length of time.
        """
        if self.budget is None:
            return None
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd])", self.budget.strip())
        if found is None or float(found[1]) == 0:
            raise UsageError(f"budget {self.budget!r} is no length of time: write for instance 90m or 2h")
        return float(found[1]) * _UNITS[found[2]]
