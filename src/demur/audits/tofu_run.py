"""The TOFU suite over a run: the run's model, the model before it, and the reference, into one folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demur.audits.guarded import answering, answers_only, guard_of
from demur.audits.open_unlearning import TOFU, read_eval
from demur.audits.request import AuditRequest, companions, evaluation_rows
from demur.audits.roles import Progress, RoleProgress, Suite, audit_roles, make_settings
from demur.audits.suites import suites
from demur.audits.tofu import TofuReport, cached_samples, check_reference, report_tofu
from demur.audits.tofu_data import TABLES, TofuData, TofuSamples, TofuSettings
from demur.audits.tofu_scoring import tofu_samples
from demur.errors import UsageError

if TYPE_CHECKING:
    from demur.models import LanguageModel
    from demur.runs import RunFolder

__all__ = ["run_tofu", "tofu_sources"]


def tofu_sources(request: AuditRequest) -> dict[str, str]:
    """Where the rows of each set are: as asked, else as the run was trained, else the benchmark's companion sets.

    Raises:
        UsageError: a set's name is unknown, or there are no forget rows.
    """
    trained = {t: evaluation_rows(request.config[t]) for t in TABLES if request.config.get(t) is not None}
    chosen = {**trained, **{t: s for t, s in request.sources.items() if s is not None}}
    if "forget" not in chosen:
        raise UsageError(f"{request.target} does not say what was to be forgotten: pass --forget")
    found = {**companions(chosen["forget"]), **chosen}
    unknown = [name for name in found if name not in TABLES]
    if unknown:
        raise UsageError(f"a TOFU audit has no set {unknown[0]!r}: the sets are {', '.join(TABLES)}")
    return {name: found[name] for name in TABLES if name in found}


@suites.register("tofu")
def run_tofu(request: AuditRequest, progress: RoleProgress | None = None) -> tuple[RunFolder, list[TofuReport]]:
    """Audit a run, or a plain model, with the TOFU suite and write results and samples into its folder.

    The model before and the reference are measured once: later audits on the same rows find them in the cache. With
    `compat="open-unlearning"` the folder also gets that project's result files.

    Args:
        request: what to audit; its settings may also name a `guard`, the folder of one that stands before the run's
            model. It answers the questions; what is measured on likelihoods then has no value, since the weights are
            as they were.
        progress: see `RoleProgress`.

    Returns:
        The folder and the reports: of the run's model, the model before and the reference, as far as there are any.

    Raises:
        UsageError: what was asked for cannot be done as asked.
    """
    request.check()
    guard, own = guard_of(request.settings)
    settings = make_settings(TofuSettings, "a TOFU", own)
    if guard is not None and not settings.generation:
        raise UsageError("a guard changes answers only: audit it with generation")
    sources = tofu_sources(request)
    data = request.shared.once(("tofu rows", *sources.items()), lambda: TofuData.read(**sources))

    def guarded(lm: LanguageModel, told: Progress | None) -> TofuSamples:
        engine = answering(lm, guard, settings.batch_size)
        return tofu_samples(lm, data, settings, engine=engine, progress=told)

    def report(samples: TofuSamples, reference: TofuSamples | None, **facts: Any) -> TofuReport:
        found = report_tofu(samples, reference, settings, **facts)
        return found if guard is None else answers_only(found, lambda m: m.endswith(("_rouge", "_fluency")))

    def write(folder: RunFolder, reports: Mapping[str, TofuReport]) -> None:
        if guard is not None:
            folder.log("guard", folder=guard)
        for role, report in reports.items():
            if settings.compat is not None:
                report.save_open_unlearning(folder.path if role == "run" else folder.path / role)

    suite = Suite(
        name=settings.suite,
        sources=sources,
        data_hash=data.hash(),
        measure=lambda lm, told: cached_samples(lm, data, settings, told),
        report=report,
        stored=_stored,
        check=lambda reference: check_reference(reference, data, settings),
        write=write,
        measure_run=None if guard is None else guarded,
    )
    return audit_roles(request, suite, progress)


def _stored(reference: str) -> TofuSamples | None:
    path = Path(reference)
    return read_eval(path) if path.suffix == ".json" or (path / TOFU.eval_file).is_file() else None
