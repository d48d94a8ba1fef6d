"""Declaring a study: its parts, each a function from a seed to measurements and one from measurements to claims."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from demur.processes import Progress
from demur.registry import Registry
from demur.studies.results import Claim

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["NotMeasured", "Part", "Progress", "studies", "study"]

studies = Registry(
    "study",
    group="demur.studies",
    builtins={
        "ches": "demur.studies.ches",
        "classifier-unlearning-metrics": "demur.studies.classifier_unlearning_metrics",
        "corrective-unlearning": "demur.studies.corrective_unlearning",
        "dart": "demur.studies.dart",
        "dco": "demur.studies.dco",
        "derta": "demur.studies.derta",
        "dmm": "demur.studies.dmm",
        "flat": "demur.studies.flat",
        "guard": "demur.studies.guard",
        "honest-helpful": "demur.studies.honest_helpful",
        "laf": "demur.studies.laf",
        "loku": "demur.studies.loku",
        "noice": "demur.studies.noice",
        "npo": "demur.studies.npo",
        "oyster": "demur.studies.oyster",
        "preference-logic": "demur.studies.preference_logic",
        "prototype-relation-distillation": "demur.studies.prototype_relation_distillation",
        "r-tuning": "demur.studies.r_tuning",
        "redi": "demur.studies.redi",
        "refusal-tokens": "demur.studies.refusal_tokens",
        "right-to-explanation-vs-forgotten": "demur.studies.right_to_explanation_vs_forgotten",
        "sai": "demur.studies.sai",
        "ssd": "demur.studies.ssd",
        "sok-unlearning": "demur.studies.sok_unlearning",
        "safe-eraser": "demur.studies.safe_eraser",
        "worst-case-forget": "demur.studies.worst_case_forget",
        "truly-forgetting": "demur.studies.truly_forgetting",
    },
)
"""Every study; its facts are `paper` (arXiv id) and `parts` (list of `Part`)."""


class NotMeasured(Exception):
    """Raised by a part that cannot be measured here; the message says what is missing."""


Measure = Callable[[int, Progress], Mapping[str, float]]
Claims = Callable[["pd.DataFrame"], Iterable[Claim]]


class Part:
    """One setting of a study.

    Args:
        name: its name within the study.
        measure: `(seed, progress) -> {name: value}`; every value is a finite number.
        seeds: seeds it is measured on unless others are asked for.
        minutes: what one seed takes on one core, roughly.
        parts: the parts of the study so far; this one is appended.
    """

    def __init__(self, name: str, measure: Measure, seeds: Sequence[int], minutes: float, parts: list[Part]) -> None:
        self.name, self.measure, self.seeds, self.minutes, self._parts = name, measure, list(seeds), minutes, parts
        self._claims: Claims | None = None
        parts.append(self)
        functools.update_wrapper(self, measure)

    def __call__(self, seed: int, progress: Progress = lambda done, total, note="": None) -> dict[str, float]:
        """Measure one seed.

        Raises:
            ValueError: a measurement is not a finite number.
        """
        measured = {name: float(value) for name, value in self.measure(seed, progress).items()}
        for name, value in measured.items():
            if not math.isfinite(value):
                raise ValueError(f"part {self.name!r}, seed {seed}: {name!r} came out as {value}")
        return measured

    @property
    def summary(self) -> str:
        """The first line of the measuring function's docstring."""
        return (inspect.getdoc(self.measure) or self.name).partition("\n")[0]

    def claims(self, function: Claims) -> Claims:
        """Decorator: `function` turns the measurements (a row a seed, a column a name) into claims."""
        self._claims = function
        return function

    def part(self, name: str, *, minutes: float, seeds: Sequence[int] = (1, 2, 3)) -> Callable[[Measure], Part]:
        """Decorator that adds another setting to the same study."""
        return lambda measure: Part(name, measure, seeds, minutes, self._parts)

    def check(self, measurements: Mapping[int, Mapping[str, float]]) -> list[Claim]:
        """The claims about `measurements`, seed → name → value.

        Raises:
            TypeError: the part declares no claims.
        """
        import pandas as pd

        if self._claims is None:
            raise TypeError(f"part {self.name!r} declares no claims: decorate a function with its .claims")
        rows = {seed: dict(row) for seed, row in sorted(measurements.items())}
        return list(self._claims(pd.DataFrame.from_dict(rows, orient="index")))


def study(
    slug: str, *, paper: str, minutes: float, seeds: Sequence[int] = (1, 2, 3), part: str = "main"
) -> Callable[[Measure], Part]:
    """Decorator that registers a study under a paper's slug; the decorated function measures its first part.

    The function takes `(seed, progress)` and returns named numbers. Decorate a second function with its `.claims`,
    and further settings with its `.part(...)`. Whatever a part cannot be measured without, it asks for first and
    raises `NotMeasured` where it is absent.

    Args:
        slug: the paper's slug in the catalogue.
        paper: its arXiv id.
        minutes: what one seed takes on one core, roughly.
        seeds: seeds it is measured on unless others are asked for.
        part: name of this setting.
    """

    def declare(measure: Measure) -> Part:
        parts: list[Part] = []
        studies.register(slug, paper=paper, parts=parts)(measure)
        return Part(part, measure, seeds, minutes, parts)

    return declare
