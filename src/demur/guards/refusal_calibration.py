"""From one scoring pass to the whole curve of refusals against over-refusals, and to the dial for a wanted rate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from demur.data.builders.refusal_tokens import ANY
from demur.errors import UsageError
from demur.guards.refusal_scores import RefusalDial, RefusalScores, choose_tokens
from demur.registry import nearest

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["NEVER", "Calibration", "RefusalCurve", "calibrate", "refusal_curve"]

NEVER = 2.0
"""A threshold that no probability reaches."""

_ROUNDS = 50


@dataclass(frozen=True)
class RefusalCurve:
    """What every threshold would do.

    Attributes:
        thresholds: (k,) falling; the first refuses least, each one after refuses some more rows.
        refusal_rate: (k,) share of the rows to refuse that are refused.
        over_refusal: (k,) share of the rows to answer that are refused.
        refuse_rows, comply_rows: how many there are of each.
    """

    thresholds: NDArray[np.float64]
    refusal_rate: NDArray[np.float64]
    over_refusal: NDArray[np.float64]
    refuse_rows: int
    comply_rows: int

    @property
    def auc(self) -> float:
        """Area under the curve: how often a row to refuse scores above one to answer, ties counting half."""
        return float(np.trapezoid(self.refusal_rate, self.over_refusal))

    def at(self, threshold: float) -> tuple[float, float]:
        """Refusal rate and over-refusal at a threshold from 0."""
        place = int(np.searchsorted(-self.thresholds, -threshold, side="right")) - 1
        return (float(self.refusal_rate[place]), float(self.over_refusal[place])) if place >= 0 else (0.0, 0.0)

    def f1(self, threshold: float) -> float:
        """F1 of refusing at a threshold: harmonic mean of refusal rate and of the share of refusals that are due."""
        rate, over = self.at(threshold)
        hits, slips = rate * self.refuse_rows, over * self.comply_rows
        return 2 * hits / (hits + slips + self.refuse_rows)


def refusal_curve(values: ArrayLike, refuses: ArrayLike) -> RefusalCurve:
    """Refusal rate against over-refusal over all thresholds, from scores that were made once.

    The points are those of `sklearn.metrics.roc_curve` with all of its thresholds.

    Args:
        values: (n,) refusal scores, for instance `RefusalScores.refusal`.
        refuses: (n,) whether each row is to be refused.

    Raises:
        UsageError: there are no rows of one of the two kinds.
    """
    scores, wanted = np.asarray(values, dtype=np.float64), np.asarray(refuses, dtype=bool)
    if not wanted.any() or wanted.all():
        raise UsageError("a curve needs rows to refuse (label refuse or abstain) and rows to answer (label comply)")
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    hits = wanted[order].cumsum()[ends]
    slips = ends + 1 - hits
    total, others = int(wanted.sum()), int((~wanted).sum())
    return RefusalCurve(
        np.concatenate([[math.inf], scores[order][ends]]),
        np.concatenate([[0.0], hits / total]),
        np.concatenate([[0.0], slips / others]),
        total,
        others,
    )


@dataclass(frozen=True)
class Calibration:
    """A dial with what it does on the rows that it was set on.

    Attributes:
        dial: the dial.
        refused: category (or "refuse" for all) → rows to refuse that are refused, and how many there are.
        over: rows to answer that are refused, and how many there are.
        notes: what could not be had.
    """

    dial: RefusalDial
    refused: Mapping[str, tuple[int, int]]
    over: tuple[int, int]
    notes: Sequence[str] = field(default_factory=tuple)


def calibrate(
    scores: RefusalScores,
    refuses: Sequence[bool],
    categories: Sequence[str | None] | None = None,
    *,
    refusal_rate: float | Mapping[str, float] | None = None,
    max_over_refusal: float | None = None,
    dial: RefusalDial | None = None,
) -> Calibration:
    """Set the thresholds for a wanted rate.

    A threshold lies midway between two scores, so that noise in the last digits of a score does not flip a row.

    Args:
        scores: of the rows, from a pass at the dial's temperature.
        refuses: whether each row is to be refused.
        categories: their categories, for rates by category.
        refusal_rate: share of the rows to refuse that must be refused at least, and as little more as can be: one
            threshold for all, or category → rate with a threshold each (others are not meddled with). A row that looks
            like another category's is decided by that one's threshold; the thresholds are set together.
        max_over_refusal: share of the rows to answer that may be refused at most: one threshold for all, as low as
            that allows.
        dial: temperature and biases to keep.

    Raises:
        UsageError: none or both of the aims are given, one is no share, or there are no rows to measure it on.
    """
    if (refusal_rate is None) == (max_over_refusal is None):
        raise UsageError("calibrate for a refusal rate or for a highest over-refusal, one of the two")
    start = dial or RefusalDial(temperature=scores.temperature)
    start.thresholds(scores.config)
    wanted = np.asarray(refuses, dtype=bool)
    values = scores.biased(start.logit_bias).refusal
    if isinstance(refusal_rate, Mapping):
        return _by_category(scores, wanted, categories, refusal_rate, start)
    aim = _share(refusal_rate if refusal_rate is not None else max_over_refusal, "the wanted rate")
    chosen = values[wanted] if refusal_rate is not None else values[~wanted]
    if not len(chosen):
        raise UsageError(f"there are no rows with label {'refuse' if refusal_rate is not None else 'comply'}")
    count = aim * len(chosen)
    pick = _at_least(chosen, math.ceil(count - 1e-9)) if refusal_rate is not None else _at_most(chosen, count)
    return _judged(
        scores, wanted, {ANY: wanted}, {ANY: refusal_rate} if refusal_rate else {}, replace(start, threshold=pick)
    )


def _by_category(
    scores: RefusalScores,
    wanted: NDArray[np.bool_],
    categories: Sequence[str | None] | None,
    rates: Mapping[str, float],
    start: RefusalDial,
) -> Calibration:
    members: dict[str, NDArray[np.bool_]] = {}
    named = np.array([str(c) for c in categories]) if categories is not None else None
    for name, rate in rates.items():
        _share(rate, f"the wanted rate of {name!r}")
        if name not in scores.config.refuse:
            raise UsageError(f"no refusal token for category {name!r}: {nearest(name, scores.config.categories)}")
        general = scores.config.categories == (ANY,)
        members[name] = wanted if general or named is None else wanted & (named == name)
        if not members[name].any():
            raise UsageError(f"no row to refuse has the category {name!r}, so its rate cannot be set")
    biased = scores.biased(start.logit_bias)
    thresholds = dict.fromkeys(rates, -1.0)
    for _ in range(_ROUNDS):
        before = dict(thresholds)
        for name, rate in rates.items():
            now = choose_tokens(scores, replace(start, threshold=thresholds)) > 0
            own = biased.top == scores.config.categories.index(name)
            values = np.where(own, biased.refusal, np.where(now, math.inf, -math.inf))[members[name]]
            thresholds[name] = _at_least(values, math.ceil(rate * len(values) - 1e-9))
        if thresholds == before:
            break
    return _judged(scores, wanted, members, rates, replace(start, threshold=thresholds))


def _judged(
    scores: RefusalScores,
    wanted: NDArray[np.bool_],
    members: Mapping[str, NDArray[np.bool_]],
    rates: Mapping[str, float],
    dial: RefusalDial,
) -> Calibration:
    refused = choose_tokens(scores, dial) > 0
    found = {name: (int((refused & rows).sum()), int(rows.sum())) for name, rows in members.items()}
    notes = []
    for name, rate in rates.items():
        hits, n = found[name]
        if not 0 <= hits - rate * n < 1:
            short = hits < rate * n
            why = "too few of its rows look like a refusal of its own" if short else "others refuse more, or scores tie"
            notes.append(f"{name}: {rate:g} was wanted and {hits / n:.3f} is what can be had ({why})")
    return Calibration(dial, found, (int((refused & ~wanted).sum()), int((~wanted).sum())), tuple(notes))


def _at_least(values: NDArray[np.float64], count: int) -> float:
    """The highest threshold at which so many values are refused, midway to the next value below."""
    falling = np.sort(values)[::-1]
    if count == 0 or falling[count - 1] == math.inf:
        return NEVER
    last = float(falling[count - 1])
    if last == -math.inf:
        return 0.0
    below = falling[(falling < last) & np.isfinite(falling)]
    return (last + float(below[0] if len(below) else 0.0)) / 2


def _at_most(values: NDArray[np.float64], share: float) -> float:
    """The lowest threshold at which no more than so many values are refused, midway to the next value above."""
    falling = np.sort(values)[::-1]
    count = math.floor(share + 1e-9)
    if count >= len(falling):
        return 0.0
    first = float(falling[count])
    above = falling[falling > first]
    if not len(above) and first == 1.0:
        return NEVER
    return (first + float(above[-1] if len(above) else 1.0)) / 2


def _share(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise UsageError(f"{what} must lie between 0 and 1, not {value!r}")
    return float(value)
