"""What a study found: claims, each with its measurements, and the verdict that follows from them."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, computed_field, field_validator

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Claim", "PartResult", "StudyResult", "Verdict"]

Verdict = Literal["holds", "does not hold", "not measured", "failed"]

_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}


def _by_seed(values: Any) -> Any:
    return {int(seed): float(value) for seed, value in values.items()} if hasattr(values, "items") else values


# Anything with `.items()` will do, so that a study can pass a column of its table of measurements.
BySeed = Annotated[dict[int, Annotated[float, Field(allow_inf_nan=False)]], BeforeValidator(_by_seed)]


def _bounds(threshold: str) -> list[tuple[str, float]]:
    bounds = []
    for clause in threshold.split(" and "):
        match = re.fullmatch(r"(<=|>=|<|>) ?(\S+)", clause.strip())
        if match is None:
            raise ValueError(f"threshold {threshold!r} must read like '< 0.3' or '>= 1e-4 and <= 0.2'")
        bounds.append((match[1], float(match[2])))
    return bounds


class Claim(BaseModel):
    """One sentence about measurements, with the gate that every seed must pass.

    Attributes:
        text: the sentence.
        measured: seed → value.
        threshold: the gate, for instance "< 0.3" or ">= 1e-4 and <= 0.2".
        kind: "paper" where the paper says it, "ours" where we add it.
        baselines: name → seed → value: what it is to be compared with.
    """

    model_config = ConfigDict(frozen=True)

    text: str
    measured: BySeed = Field(min_length=1)
    threshold: str
    kind: Literal["paper", "ours"] = "paper"
    baselines: dict[str, BySeed] = {}

    if TYPE_CHECKING:  # what the validators take, not what they make of it

        def __init__(
            self,
            *,
            text: str,
            measured: pd.Series[Any] | Mapping[int, float],
            threshold: str,
            kind: Literal["paper", "ours"] = "paper",
            baselines: Mapping[str, pd.Series[Any] | Mapping[int, float]] = ...,
        ) -> None: ...

    @field_validator("threshold")
    @classmethod
    def _readable(cls, threshold: str) -> str:
        _bounds(threshold)
        return threshold

    @computed_field  # type: ignore[prop-decorator]
    @property
    def holds(self) -> bool:
        """Whether every seed passes the gate."""
        bounds = _bounds(self.threshold)
        return all(_OPERATORS[op](value, bound) for value in self.measured.values() for op, bound in bounds)


class PartResult(BaseModel):
    """What one part of a study found.

    Attributes:
        name, summary: the part.
        code: hash of the code that was run.
        seeds: seeds that were asked for.
        seconds: seed → seconds of the run that measured it.
        measurements: seed → name → value.
        claims: empty unless every seed was measured.
        problem: why it was not measured, or how it failed.
        failed: whether `problem` is a failure.
    """

    name: str
    summary: str
    code: str = ""
    seeds: list[int]
    seconds: dict[int, float] = {}
    measurements: dict[int, dict[str, float]] = {}
    claims: list[Claim] = []
    problem: str | None = None
    failed: bool = False

    @computed_field  # type: ignore[prop-decorator]
    @property
    def verdict(self) -> Verdict:
        """What follows: "holds" only when everything was measured and every claim holds."""
        if self.failed:
            return "failed"
        if self.problem is not None or not self.claims:
            return "not measured"
        return "holds" if all(claim.holds for claim in self.claims) else "does not hold"


class StudyResult(BaseModel):
    """What a study found.

    Attributes:
        study: its slug.
        paper: arXiv id of its paper.
        versions: versions of what the numbers depend on.
        parts: what each part found.
    """

    study: str
    paper: str
    versions: dict[str, str] = {}
    parts: list[PartResult] = Field(min_length=1)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def verdict(self) -> Verdict:
        """The worst of the parts' verdicts."""
        severity: list[Verdict] = ["failed", "does not hold", "not measured", "holds"]
        return min((part.verdict for part in self.parts), key=severity.index)
