"""What a metric is: a function from an audit's samples to one number with its interval.

A suite scores a model once and keeps one table of samples a data set; every metric reads those tables. So a metric
can be added without touching a model, and any number can be computed again from the samples of a finished run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from demur.audits.membership import ATTACKS
from demur.intervals import bootstrap
from demur.registry import Registry
from demur.runs import Better, Result

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

__all__ = ["Audit", "Estimate", "Unavailable", "evaluate", "metric", "metrics"]

VERBMEM_MEASURES = ("", "_extraction_strength", "_exact_memorization", "_probability")
_SCORES = ("probability", "rouge", "truth_ratio")
_BUILTIN = {
    "demur.audits.parity_run": (
        *(f"parity_{m}" for m in ("difference", "target_difference", "swap_p")),
        *("refusal_rate", "partial_refusal_rate"),
    ),
    "demur.audits.refusal": (
        *("full_refusals", "over_refusals", "partial_refusals"),
        *(f"refusal_{m}" for m in ("precision", "f1", "token_auc")),
    ),
    "demur.audits.coverage": ("greedy_accuracy", "greedy_confidence"),
    "demur.audits.honesty_run": ("honesty_rate", "h2_score", "h2_poor", "h2_excellent", "answer_words"),
    "demur.audits.safe_eraser": (
        *(f"{m}_{kind}" for m in ("asr", "rr") for kind in ("efficacy", "generality")),
        "sarr",
        *(f"harmless_rouge_{m}" for m in ("recall", "precision", "f1")),
    ),
    "demur.audits.tofu_metrics": (
        *(f"{t}_{m}" for t in ("forget", "retain", "real_authors", "world_facts") for m in _SCORES),
        *(f"forget_{m}" for m in ("truth_share", "extraction_strength", "exact_memorization", "fluency")),
        *(f"forget_quality{m}" for m in ("", "_log10", "_distance")),
        *(f"mia_{m}" for m in ATTACKS),
        "model_utility",
        "privleak",
    ),
    "demur.audits.muse_metrics": (
        *(f"{t}_knowmem" for t in ("forget", "retain")),
        *(f"{t}_verbmem{m}" for t in ("forget", "retain", "holdout") for m in VERBMEM_MEASURES),
    ),
}
metrics = Registry("metric", "demur.metrics", {name: module for module, names in _BUILTIN.items() for name in names})
"""All metrics by name."""


class Unavailable(Exception):
    """A metric cannot be computed from what the audit has; the message says what is missing.

    Args:
        reason: one clause for people to read.
        unscored: how many rows are left without a value.
    """

    def __init__(self, reason: str, unscored: int = 0) -> None:
        super().__init__(reason)
        self.unscored = unscored


@dataclass(frozen=True)
class Estimate:
    """A metric's value with what is needed to trust it.

    Attributes:
        value: the number; None where it could not be computed.
        low, high: ends of its 95 % interval; None where it has none.
        n: samples that went into it.
        unscored: samples that were left out because they have no value.
        method: how the interval was made.
        note: what a reader should know, for instance why there is no value.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    unscored: int = 0
    method: Literal["bootstrap", "exact", "none"] = "none"
    note: str = ""

    def result(self, name: str, **facts: Any) -> Result:
        """The tidy row for this estimate; `facts` are `Result`'s run, suite, role, seed and so on."""
        better = metrics.get(name).facts.get("better", "none")
        return Result(
            metric=name,
            value=self.value,
            low=self.low,
            high=self.high,
            n=self.n,
            unscored=self.unscored,
            method=self.method,
            better=better,
            **facts,
        )


@dataclass(frozen=True)
class Audit:
    """What metrics are computed from.

    Attributes:
        samples: data set → table with one row a sample.
        reference: the same for the reference (gold) model, measured on the same rows; None without one.
        compat: follow open-unlearning to the letter; a sample without a value then makes its mean undefined.
        seed: seed of the bootstrap.
        resamples: draws of the bootstrap.
        hints: column → what it is made from, told where it is absent.
        reference_auc: what privacy leakage is measured against where there is no reference.
    """

    samples: Mapping[str, pd.DataFrame]
    reference: Mapping[str, pd.DataFrame] | None = None
    compat: bool = False
    seed: int = 0
    resamples: int = 1000
    hints: Mapping[str, str] = field(default_factory=dict)
    reference_auc: float = 0.5

    def columns(self, table: str, names: Sequence[str], of: Literal["model", "reference"] = "model") -> NDArray[Any]:
        """Some columns of a table as an array of shape (rows, columns), nan where a sample has no value.

        Raises:
            Unavailable: the table or a column is absent.
        """
        tables = self.samples if of == "model" else self.reference
        words = table.replace("_", " ")
        if tables is None:
            raise Unavailable("no reference model was given", len(self.samples.get(table, ())))
        if table not in tables:
            raise Unavailable(f"no {words} rows were given" if of == "model" else f"the reference has no {words} rows")
        frame = tables[table]
        absent = [name for name in names if name not in frame or frame[name].isna().all()]
        if absent:
            whose = "the reference's" if of == "reference" else "the"
            named = [f"{name} ({self.hints[name]})" if name in self.hints else name for name in absent]
            raise Unavailable(f"{whose} {words} rows have no {', '.join(named)}", len(frame))
        return frame[list(names)].to_numpy(dtype=np.float64, copy=True)

    def pairs(self, table: str, name: str) -> NDArray[Any]:
        """A column of the model's beside the reference's, (rows, 2), row by row.

        Raises:
            Unavailable: one of them is absent, or they were measured on different rows.
        """
        ours, theirs = self.columns(table, [name]), self.columns(table, [name], of="reference")
        if len(ours) != len(theirs):
            raise Unavailable(
                f"the reference was measured on {len(theirs)} {table.replace('_', ' ')} rows, the model on {len(ours)}",
                len(ours),
            )
        return np.concatenate([ours, theirs], axis=1)

    def mean(self, table: str, name: str, transform: Callable[[NDArray[Any]], NDArray[Any]] | None = None) -> Estimate:
        """Mean of a column, after `transform` of its values, with its bootstrap interval.

        Raises:
            Unavailable: the table or the column is absent.
        """
        values = self.columns(table, [name])[:, 0]
        scored = values[~np.isnan(values)]
        unscored = len(values) - len(scored)
        # open-unlearning leaves out only samples that it marked None, which is what exact memorisation does.
        if self.compat and unscored and name != "exact_memorization":
            raise Unavailable(f"{unscored} rows have no answer token", len(values))
        scored = transform(scored) if transform else scored
        return self.estimate(lambda draws: draws.mean(axis=-1), scored, unscored=unscored)

    def estimate(
        self, statistic: Callable[..., NDArray[Any]], *samples: NDArray[Any], unscored: int = 0, note: str = ""
    ) -> Estimate:
        """A statistic of samples with its bootstrap interval; the statistic is as `intervals.bootstrap` takes it."""
        value = float(statistic(*(s[None] for s in samples))[0])
        low, high = bootstrap(statistic, *samples, resamples=self.resamples, seed=self.seed)
        n = sum(len(s) for s in samples)
        if math.isnan(low) or math.isnan(high):
            return Estimate(value, None, None, n, unscored, "none", note)
        return Estimate(value, low, high, n, unscored, "bootstrap", note)


def metric(name: str, *, better: Better, paper: str | None = None, needs: Sequence[str] = ()) -> Callable[..., Any]:
    """Decorator that files a metric: a function from an `Audit` to an `Estimate`, which may raise `Unavailable`.

    Args:
        name: the name in results.
        better: which direction is good.
        paper: arXiv id of its source.
        needs: the tables it reads, "reference" among them where it needs the reference model.
    """
    return metrics.register(name, better=better, paper=paper, needs=tuple(needs))


def evaluate(audit: Audit, names: Iterable[str]) -> dict[str, Estimate]:
    """Compute metrics; one that cannot be computed has the value None and says why.

    Raises:
        UnknownNameError: no metric has that name.
    """
    out = {}
    for name in names:
        try:
            estimate: Estimate = metrics.get(name).function(audit)
        except Unavailable as reason:
            estimate = Estimate(None, unscored=reason.unscored, note=str(reason))
        if estimate.value is not None and not math.isfinite(estimate.value):
            estimate = replace(estimate, value=None, low=None, high=None, method="none", note="the value is not finite")
        out[name] = estimate
    return out
