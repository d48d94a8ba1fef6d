"""What a suite found about one model: results, notes, and the samples behind them."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from demur.audits.estimates import Audit, evaluate
from demur.audits.samples import Samples
from demur.runs import Result, RunFolder

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Role", "SuiteReport"]

Role = Literal["run", "before", "reference"]
_SAMPLE_COLUMNS = (
    "role",
    "id",
    "prompt",
    "truth",
    "generation",
    "probability",
    "rougeL_recall",
    "rouge1_recall",
    "truth_ratio",
    "extraction_strength",
    "exact_memorization",
    "loss",
)


@dataclass(frozen=True)
class SuiteReport:
    """What an audit of one model found.

    Attributes:
        results: one row a metric; a metric that could not be computed has the value None.
        notes: metric → why it has no value, or what to know about it.
        measured: the samples behind the results.
        reference: the reference model's samples, where there was one.
    """

    results: list[Result]
    notes: Mapping[str, str]
    measured: Samples
    reference: Samples | None = None

    @classmethod
    def compute(
        cls,
        audit: Audit,
        metrics: Sequence[str],
        measured: Samples,
        reference: Samples | None,
        *,
        suite: str,
        role: Role,
        run: str,
        seconds: float,
    ) -> Self:
        """The metrics of a finished scoring pass.

        Args:
            audit: what the metrics are computed from; its seed is written into the results.
            metrics: their names.
            measured, reference: kept beside the results.
            suite, role, run: written into the results.
            seconds: time that the pass took, shared out over the metrics.
        """
        started = time.perf_counter()
        estimates = evaluate(audit, metrics)
        share = (seconds + time.perf_counter() - started) / max(1, len(estimates))
        results = [
            e.result(name, run=run, suite=suite, role=role, seed=audit.seed, seconds=share)
            for name, e in estimates.items()
        ]
        return cls(results, {n: e.note for n, e in estimates.items() if e.note}, measured, reference)

    @property
    def summary(self) -> dict[str, float]:
        """Metric → value, of those that have one."""
        return {r.metric: r.value for r in self.results if r.value is not None}

    @property
    def role(self) -> Role:
        """Whose numbers these are."""
        return self.results[0].role

    @property
    def suite(self) -> str:
        """The suite's name in results and in the names of the sample tables."""
        return self.results[0].suite

    @property
    def samples(self) -> dict[str, pd.DataFrame]:
        """Sample tables by the name that they have in a run folder, with the column `role`."""
        out = {}
        for name, measured in self.measured.tables.items():
            table = measured.copy()
            table.insert(0, "role", self.role)
            missing = [c for c in _SAMPLE_COLUMNS if c not in table]
            table[missing] = None
            rest = [c for c in table.columns if c not in _SAMPLE_COLUMNS]
            out[f"{self.suite.replace('-', '_')}_{name}"] = table[[*_SAMPLE_COLUMNS, *rest]]
        return out

    def named(self, run: str) -> Self:
        """The same report under a run's name."""
        return dataclasses.replace(self, results=[dataclasses.replace(r, run=run) for r in self.results])

    def save(self, folder: str | Path | RunFolder) -> None:
        """Write results and samples into a run folder, in place of earlier ones of the same role."""
        import pandas as pd

        run = folder if isinstance(folder, RunFolder) else RunFolder(folder)
        for name, table in self.samples.items():
            before = run.samples(name)
            if before is not None:
                others = before[before["role"] != self.role]
                table = pd.concat([frame for frame in (others, table) if len(frame)], ignore_index=True)
            run.write_samples(name, table)
        run.add_results(self.results)
        run.log("audit", suite=self.suite, role=self.role, model=self.measured.model, notes=dict(self.notes))
