"""The MUSE suite: does a model still know texts by heart or by content, is the rest intact, can an outsider tell.

Definitions: MUSE (Shi et al. 2024, arXiv 2407.06460), as open-unlearning computes them (arXiv 2506.12618); see
`docs/audits.md`.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demur.audits.estimates import Audit
from demur.audits.guarded import answers_only, guard_of
from demur.audits.muse_data import AUC_RETRAIN, TABLES, VERBMEM, MuseData, MuseSettings
from demur.audits.muse_metrics import HINTS, MUSE_METRICS
from demur.audits.muse_scoring import muse_samples
from demur.audits.open_unlearning import MUSE, read_eval, write_eval
from demur.audits.request import AuditRequest
from demur.audits.roles import Progress, RoleProgress, Suite, audit_roles, make_settings
from demur.audits.samples import Samples, cached_pass
from demur.audits.suite_report import Role, SuiteReport
from demur.audits.suites import suites
from demur.errors import UsageError
from demur.files import atomic_write
from demur.registry import nearest

if TYPE_CHECKING:
    from demur.models import LanguageModel
    from demur.runs import RunFolder

__all__ = ["MuseReport", "audit_muse", "muse_sources", "report_muse", "run_muse"]

_VERSION = 1  # of what a scoring pass measures; raising it makes every cached pass stale
_BENCH = {
    "verbmem_f": "forget_verbmem",
    "privleak": "privleak",
    "knowmem_f": "forget_knowmem",
    "knowmem_r": "retain_knowmem",
}


@dataclass(frozen=True)
class MuseReport(SuiteReport):
    """What a MUSE audit of one model found."""

    def save_open_unlearning(self, folder: str | Path) -> None:
        """Write `MUSE_EVAL.json` and `MUSE_SUMMARY.json`, which open-unlearning reads."""
        write_eval(folder, self.measured.tables, self.summary, {r.metric for r in self.results}, MUSE)

    def save_muse_bench(self, folder: str | Path) -> None:
        """Write `muse_bench.csv`, a line as MUSE's own code writes it: ROUGE times a hundred."""
        values = {name: self.summary.get(metric) for name, metric in _BENCH.items()}
        hundred = {n: v if v is None or n == "privleak" else 100 * v for n, v in values.items()}
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerows([["name", *hundred], [self.measured.model, *hundred.values()]])
        with atomic_write(Path(folder) / "muse_bench.csv") as temporary:
            temporary.write_text(text.getvalue(), encoding="utf-8", newline="")


def audit_muse(
    lm: LanguageModel,
    data: MuseData,
    *,
    reference: Samples | None = None,
    settings: MuseSettings | None = None,
    role: Role = "run",
    run: str = "",
    seed: int = 0,
    progress: Progress | None = None,
    **options: Any,
) -> MuseReport:
    """Measure a model with the MUSE suite.

    Args:
        lm: the model.
        data: the rows.
        reference: the scoring pass of a model that never saw the forget texts, on the same rows.
        settings: how to measure; single settings may be given by name instead, for instance `compat="muse_bench"`.
        role, run: written into the results.
        seed: seed of the bootstrap.
        progress: called with what is being done, how much of it is done and how much there is.

    Raises:
        UsageError: a setting is unknown, or a row does not fit into the model's context.
    """
    settings = make_settings(MuseSettings, "a MUSE", options, settings)
    samples = muse_samples(lm, data, settings, progress)
    return report_muse(samples, reference, settings, role=role, run=run, seed=seed)


def report_muse(
    samples: Samples,
    reference: Samples | None = None,
    settings: MuseSettings | None = None,
    *,
    role: Role = "run",
    run: str = "",
    seed: int = 0,
    seconds: float = 0.0,
) -> MuseReport:
    """Compute the suite's metrics from a scoring pass that was made before.

    Args:
        samples: the model's scoring pass.
        reference: the reference model's.
        settings: as the passes were made.
        role, run, seed: written into the results; `seed` is also the bootstrap's.
        seconds: time that the pass took, shared out over the metrics.
    """
    settings = settings or MuseSettings()
    wanted = [m for m in MUSE_METRICS if m in _BENCH.values() or _table(m) in samples.tables]
    wanted += [f"mia_{attack}" for attack in settings.attacks] if "forget" in samples.tables else []
    audit = Audit(
        samples.tables,
        None if reference is None else reference.tables,
        compat=settings.compat == "open-unlearning",
        seed=seed,
        hints=HINTS,
        reference_auc=0.5 if settings.reference_auc is None else settings.reference_auc,
    )
    return MuseReport.compute(
        audit, wanted, samples, reference, suite=settings.suite, role=role, run=run, seconds=seconds
    )


def _table(metric: str) -> str:
    return next((table for table in VERBMEM if metric.startswith(table)), metric)


def muse_sources(request: AuditRequest) -> dict[str, str]:
    """Where the rows of each set are: as asked, else those of the corpus that the run's forget texts are from.

    The texts of a run that are of no corpus are themselves what is measured on: as they are for membership attacks,
    and their second halves for what the model goes on with.

    Raises:
        UsageError: a set's name is unknown, or there is nothing to measure on.
    """
    from demur.data.muse import corpus_sets, muse_corpus

    given = {name: source for name, source in request.sources.items() if source is not None}
    trained = {name: request.config.get(name) for name in ("forget", "retain", "holdout")}
    texts = {name: text for name, source in trained.items() if (text := given.get(name) or source)}
    corpus = muse_corpus(texts.get("forget"))
    found: dict[str, str] = {}
    if corpus is not None:
        found = corpus_sets(corpus)
    elif texts:
        found = {f"{name}_verbmem": source for name, source in texts.items()}
        found |= {name: source for name, source in texts.items() if name in ("forget", "holdout")}
    asked = {n: s for n, s in given.items() if n != "retain" and not (n == "forget" and corpus is not None)}
    unknown = [name for name in asked if name not in TABLES]
    if unknown:
        raise UsageError(f"a MUSE audit has no set {unknown[0]!r}: {nearest(unknown[0], TABLES)}")
    found |= asked
    if not found:
        raise UsageError(f"{request.target} does not say what was to be forgotten: pass --forget muse:News:raw:forget")
    return {name: found[name] for name in TABLES if name in found}


def _settings(given: Mapping[str, Any], sources: Mapping[str, str]) -> MuseSettings:
    """The settings by name; in MUSE's own flavour with the AUC of the corpus's retrained model."""
    settings = make_settings(MuseSettings, "a MUSE", given)
    corpus = re.search(r"muse:(News|Books):|MUSE-(News|Books):", " ".join(sources.values()), re.IGNORECASE)
    if settings.compat == "muse_bench" and settings.reference_auc is None and corpus:
        name = (corpus[1] or corpus[2]).capitalize()
        settings = dataclasses.replace(settings, reference_auc=AUC_RETRAIN[name])
    return settings


@suites.register("muse")
def run_muse(request: AuditRequest, progress: RoleProgress | None = None) -> tuple[RunFolder, list[MuseReport]]:
    """Audit a run, or a plain model, with the MUSE suite and write results and samples into its folder.

    With `compat` the folder also gets the result files of that project.

    Args:
        request: what to audit; its settings may also name a `guard`, the folder of one that answers and goes on with
            texts in the place of the run's model. What is measured on likelihoods then has no value.
        progress: called with whose model is measured, what is being done, how much of it is done and how much there is.

    Returns:
        The folder and the reports: of the run's model, the model before and the reference, as far as there are any.

    Raises:
        UsageError: what was asked for cannot be done as asked.
    """
    request.check()
    guard, own = guard_of(request.settings)
    sources = muse_sources(request)
    settings = _settings(own, sources)
    if guard is not None and not settings.generation:
        raise UsageError("a guard changes answers only: audit it with generation")
    data = request.shared.once(("muse rows", *sources.items()), lambda: MuseData.read(**sources))
    measured = {k: v for k, v in dataclasses.asdict(settings).items() if k not in ("batch_size", "reference_auc")}

    def measure(lm: LanguageModel, told: Progress | None) -> Samples:
        parts = ["muse", _VERSION, data.hash(), measured]
        return cached_pass(Samples, lm, parts, lambda: muse_samples(lm, data, settings, told))

    def report(samples: Samples, reference: Samples | None, **facts: Any) -> MuseReport:
        found = report_muse(samples, reference, settings, **facts)
        return found if guard is None else answers_only(found, lambda m: m.endswith(("_knowmem", "_verbmem")))

    def write(folder: RunFolder, reports: Mapping[str, MuseReport]) -> None:
        for role, report in reports.items():
            place = folder.path if role == "run" else folder.path / role
            if settings.compat == "open-unlearning":
                report.save_open_unlearning(place)
            elif settings.compat == "muse_bench":
                report.save_muse_bench(place)

    suite = Suite(
        name=settings.suite,
        sources=sources,
        data_hash=data.hash(),
        measure=measure,
        report=report,
        stored=_stored,
        check=lambda reference: _check_reference(reference, data, settings),
        write=write,
        measure_run=None if guard is None else lambda lm, told: muse_samples(lm, data, settings, told, guard),
    )
    return audit_roles(request, suite, progress)


def _stored(reference: str) -> Samples | None:
    path = Path(reference)
    return read_eval(path, MUSE) if path.suffix == ".json" or (path / MUSE.eval_file).is_file() else None


def _check_reference(reference: Samples, data: MuseData, settings: MuseSettings) -> None:
    if settings.compat == "open-unlearning":
        return
    for name in ("forget", "holdout"):
        if name in data.sets and name in reference.tables and len(reference.tables[name]) != len(data.sets[name]):
            raise UsageError(
                f"the reference {reference.model} was measured on {len(reference.tables[name])} {name} rows, not on "
                f"{len(data.sets[name])}: audit the reference on the same {name} set"
            )
