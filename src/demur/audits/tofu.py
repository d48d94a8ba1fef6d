"""The TOFU suite: memorisation, utility, privacy and forget quality of a model, from one scoring pass.

Definitions and defaults: TOFU (Maini et al. 2024, arXiv 2401.06121) and OpenUnlearning (Dorna et al. 2025, arXiv
2506.12618), see `docs/audits.md`.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demur.audits.estimates import Audit
from demur.audits.roles import make_settings
from demur.audits.samples import cached_pass
from demur.audits.suite_report import Role, SuiteReport
from demur.audits.tofu_data import TofuData, TofuSamples, TofuSettings
from demur.audits.tofu_metrics import HINTS, TOFU_METRICS
from demur.audits.tofu_scoring import Fluency, Progress, tofu_samples
from demur.errors import UsageError

if TYPE_CHECKING:
    from demur.models import Engine, LanguageModel

__all__ = ["TofuReport", "audit_tofu", "cached_samples", "report_tofu"]

_VERSION = 1  # of what a scoring pass measures; raising it makes every cached pass stale


@dataclass(frozen=True)
class TofuReport(SuiteReport):
    """What a TOFU audit of one model found."""

    def save_open_unlearning(self, folder: str | Path) -> None:
        """Write `TOFU_EVAL.json` and `TOFU_SUMMARY.json`, which open-unlearning reads."""
        from demur.audits.open_unlearning import write_eval

        write_eval(folder, self.measured.tables, self.summary, {r.metric for r in self.results})


def audit_tofu(
    lm: LanguageModel,
    data: TofuData,
    *,
    reference: TofuSamples | None = None,
    settings: TofuSettings | None = None,
    engine: Engine | None = None,
    fluency: Fluency | None = None,
    role: Role = "run",
    run: str = "",
    seed: int = 0,
    cache: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> TofuReport:
    """Measure a model with the TOFU suite.

    Metrics whose data are missing have the value None and a note that says why; model utility has a value only if all
    nine of its parts exist.

    Args:
        lm: the model.
        data: the rows.
        reference: the scoring pass of a (gold) model that never saw the forget rows, on the same rows.
        settings: how to measure; single settings may be given by name instead, for instance
            `compat="open-unlearning"`, `generation=False`, `attacks=("min_k", "gradnorm")`.
        engine: answers the questions in place of the model itself, for instance a guard around it.
        fluency: scores the answers on the forget set, for the metric `forget_fluency`.
        role, run: written into the results.
        seed: seed of the bootstrap.
        cache: keep the scoring pass on disk, and use the kept one where weights, rows and settings are the same.
        progress: called with what is being done, how much of it is done and how much there is.

    Raises:
        UsageError: a setting is unknown, a needed column is missing, a row is longer than the model's context, or the
            reference was measured on other rows.
    """
    if options:
        settings = make_settings(TofuSettings, "a TOFU", options, settings)
    settings = settings or TofuSettings()
    if reference is not None:
        check_reference(reference, data, settings)
    started = time.perf_counter()
    if cache and engine is None and fluency is None:
        samples = cached_samples(lm, data, settings, progress)
    else:
        samples = tofu_samples(lm, data, settings, engine=engine, fluency=fluency, progress=progress)
    seconds = time.perf_counter() - started
    return report_tofu(samples, reference, settings, role=role, run=run, seed=seed, seconds=seconds)


def check_reference(reference: TofuSamples, data: TofuData, settings: TofuSettings) -> None:
    """Refuse a reference that was measured on other rows; open-unlearning's mode compares anything.

    Raises:
        UsageError: a set differs in its number of rows, or in its rows' ids where both have ids of their own.
    """
    if settings.compat is not None:
        return
    for name in ("forget", "holdout"):
        rows = data.sets.get(name)
        if rows is None or name not in reference.tables:
            continue
        table = reference.tables[name]
        if len(table) != len(rows):
            raise UsageError(
                f"the reference {reference.model} was measured on {len(table)} {name} rows, not on {len(rows)}: "
                f"audit the reference on the same {name} set"
            )
        ids = [str(i) for i in rows["id"]]
        if not reference.facts.get("numbered", False) and list(table["id"]) != ids:
            raise UsageError(
                f"the reference {reference.model} was measured on other {name} rows than this audit has: "
                f"audit the reference on the same {name} set"
            )


def report_tofu(
    samples: TofuSamples,
    reference: TofuSamples | None = None,
    settings: TofuSettings | None = None,
    *,
    role: Role = "run",
    run: str = "",
    seed: int = 0,
    seconds: float = 0.0,
    metrics: Sequence[str] | None = None,
) -> TofuReport:
    """Compute the suite's metrics from a scoring pass that was made before.

    Args:
        samples: the model's scoring pass.
        reference: the reference model's.
        settings: as the passes were made.
        role, run, seed: written into the results; `seed` is also the bootstrap's.
        seconds: time that the pass took, shared out over the metrics.
        metrics: which ones; those of the suite by default.
    """
    settings = settings or TofuSettings()
    if metrics is None:
        metrics = [m for m in TOFU_METRICS if not m.startswith("mia_") or m.removeprefix("mia_") in settings.attacks]
        metrics += ["mia_gradnorm"] if "gradnorm" in settings.attacks else []
        metrics += ["forget_fluency"] if "fluency" in samples.tables["forget"] else []
    audit = Audit(
        samples.tables,
        None if reference is None else reference.tables,
        compat=settings.compat is not None,
        seed=seed,
        hints=HINTS,
    )
    return TofuReport.compute(
        audit, metrics, samples, reference, suite=settings.suite, role=role, run=run, seconds=seconds
    )


def cached_samples(
    lm: LanguageModel, data: TofuData, settings: TofuSettings | None = None, progress: Progress | None = None
) -> TofuSamples:
    """A scoring pass, from the cache where the same weights met the same rows under the same settings before."""
    settings = settings or TofuSettings()
    measured = {k: v for k, v in dataclasses.asdict(settings).items() if k != "batch_size"}
    parts = [_VERSION, data.hash(), measured]
    return cached_pass(TofuSamples, lm, parts, lambda: tofu_samples(lm, data, settings, progress=progress))
