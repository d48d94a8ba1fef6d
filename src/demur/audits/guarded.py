"""A guard in the place of a run's model: what it changes, and what stays as the weights have it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from demur.audits.suite_report import SuiteReport

if TYPE_CHECKING:
    from demur.models import Engine, LanguageModel

__all__ = ["OF_THE_WEIGHTS", "answering", "answers_only", "guard_of"]

OF_THE_WEIGHTS = "n/a (suppression): the guard leaves the weights and their likelihoods as they are"

AnyReport = TypeVar("AnyReport", bound=SuiteReport)


def guard_of(settings: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
    """The folder of the guard that an audit's settings name, and the other settings."""
    rest = dict(settings)
    guard = rest.pop("guard", None)
    return None if guard is None else str(guard), rest


def answering(lm: LanguageModel, guard: str | None, batch_size: int) -> Engine:
    """What answers for a model: its own engine, or the guard in a folder around that.

    Raises:
        UsageError: the folder holds no guard, or one of another model.
    """
    from demur.guards import open_guard
    from demur.models import LocalEngine

    engine = LocalEngine(lm, batch_size)
    return engine if guard is None else open_guard(guard, engine)


def answers_only(report: AnyReport, told: Callable[[str], bool]) -> AnyReport:
    """A guarded run's report without the numbers that answers do not show.

    Likelihoods under a guard are the unguarded model's, and say nothing of what it lets through.

    Args:
        report: what was measured; that of another model than the run's is returned as it is.
        told: whether a metric is computed from answers alone.
    """
    if report.role != "run":
        return report
    blind = [r.metric for r in report.results if not told(r.metric)]
    none: dict[str, Any] = {"value": None, "low": None, "high": None}
    results = [dataclasses.replace(r, **none) if r.metric in blind else r for r in report.results]
    return dataclasses.replace(report, results=results, notes={**report.notes, **dict.fromkeys(blind, OF_THE_WEIGHTS)})
