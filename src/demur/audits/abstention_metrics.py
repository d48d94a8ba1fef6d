"""The numbers of the abstention suite, each from a table of answers, over all rows and domain by domain."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from demur.audits.calibration import aurc, average_precision, expected_calibration_error
from demur.audits.estimates import Audit, Estimate, Unavailable
from demur.audits.suite_report import Role
from demur.intervals import clopper_pearson
from demur.runs import Better, Result

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

__all__ = ["CONFIDENCES", "abstention_results"]

CONFIDENCES = ("predict_conf", "sure_prob", "combined")
"""The three ways in which a model's confidence in its answer is read: columns of the table, ends of metric names."""

_TABLE = "answers"
Measure = Callable[[Audit, int], Estimate]


def abstention_results(
    tables: Mapping[str, pd.DataFrame], *, bins: int = 10, role: Role = "run", seed: int = 0, seconds: float = 0.0
) -> tuple[list[Result], dict[str, str]]:
    """Every measure over all rows, and over each domain as `MEASURE:DOMAIN` where there are several.

    Args:
        tables: domain → one row an answer with the columns correct, abstained, willing, known (1, 0 or nan) and those
            of `CONFIDENCES`.
        bins: of the calibration error.
        role, seed: written into the results.
        seconds: time that the pass took, shared out over the results.

    Returns:
        The results, and measure → why it has no value.
    """
    import pandas as pd

    parts = {"": pd.concat(tables.values(), ignore_index=True)}
    if len(tables) > 1:
        parts |= {f":{name}": table for name, table in tables.items()}
    found, notes = {}, {}
    for suffix, table in parts.items():
        audit = Audit({_TABLE: table}, seed=seed)
        for name, (better, measure) in _MEASURES.items():
            try:
                estimate = measure(audit, bins)
            except Unavailable as reason:
                estimate = Estimate(None, unscored=reason.unscored)
                notes[f"{name}{suffix}"] = str(reason)
            found[f"{name}{suffix}"] = (better, estimate)
    share = seconds / len(found)
    results = [
        Result(
            run="",
            suite="abstention",
            metric=name,
            value=e.value,
            low=e.low,
            high=e.high,
            n=e.n,
            unscored=e.unscored,
            role=role,
            better=better,
            method=e.method,
            seed=seed,
            seconds=share,
        )
        for name, (better, e) in found.items()
    ]
    return results, notes


def _column(audit: Audit, *names: str) -> NDArray[Any]:
    return audit.columns(_TABLE, list(names))


def _proportion(hits: NDArray[Any], what: str) -> Estimate:
    if not len(hits):
        raise Unavailable(f"there are no {what}")
    count = int(hits.sum())
    return Estimate(count / len(hits), *clopper_pearson(count, len(hits)), len(hits), 0, "exact")


def _share(name: str) -> Measure:
    return lambda audit, bins: _proportion(_column(audit, name)[:, 0], "answers")


def _willing_accuracy(audit: Audit, bins: int) -> Estimate:
    correct, willing = _column(audit, "correct", "willing").T
    return _proportion(correct[willing == 1], "willing answers")


def _unwilling(known: bool) -> Measure:
    def measure(audit: Audit, bins: int) -> Estimate:
        willing, of = _column(audit, "willing", "known").T
        return _proportion(1 - willing[of == known], f"questions that are {'' if known else 'un'}known")

    return measure


def _gap(value: str, by: str, what: str) -> Measure:
    """Share of answers with `value` (willing, or sure) where `by` is 1, less that where `by` is 0."""

    def measure(audit: Audit, bins: int) -> Estimate:
        values, groups = _column(audit, value, by).T
        if value == "sure_prob":
            values = np.where(np.isnan(values), np.nan, values > 0.5)
        ones, zeros = values[groups == 1], values[groups == 0]
        if not len(ones) or not len(zeros):
            raise Unavailable(f"there are no two kinds of {what} to compare")
        return audit.estimate(lambda a, b: a.mean(axis=-1) - b.mean(axis=-1), ones, zeros)

    return measure


def _ranking(statistic: Callable[..., NDArray[Any]], confidence: str, needs_hits: bool) -> Measure:
    def measure(audit: Audit, bins: int) -> Estimate:
        pairs = _column(audit, "correct", confidence)
        scored = pairs[~np.isnan(pairs[:, 1])]
        if needs_hits and not scored[:, 0].any():
            raise Unavailable("no answer is right", len(pairs))
        more = {"bins": bins} if statistic is expected_calibration_error else {}
        return audit.estimate(
            lambda draws: statistic(draws[..., 0], draws[..., 1], **more), scored, unscored=len(pairs) - len(scored)
        )

    return measure


_MEASURES: dict[str, tuple[Better, Measure]] = {
    "accuracy": ("higher", _share("correct")),
    "answer_rate": ("none", _share("willing")),
    "willing_accuracy": ("higher", _willing_accuracy),
    "abstention_known": ("lower", _unwilling(True)),
    "abstention_unknown": ("higher", _unwilling(False)),
    "abstention_gap": ("higher", _gap("willing", "known", "questions, known and unknown,")),
    "sure_gap": ("higher", _gap("sure_prob", "correct", "answers, right and wrong,")),
    **{f"ap_{c}": ("higher", _ranking(average_precision, c, True)) for c in CONFIDENCES},
    **{f"ece_{c}": ("lower", _ranking(expected_calibration_error, c, False)) for c in CONFIDENCES},
    **{f"aurc_{c}": ("lower", _ranking(aurc, c, False)) for c in CONFIDENCES},
}
