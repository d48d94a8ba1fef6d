"""The TOFU suite over a run: the run's model, the model before it, and the reference, into one folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demur.audits.open_unlearning import EVAL_FILE, read_eval
from demur.audits.request import AuditRequest, companions, evaluation_rows
from demur.audits.suites import suites
from demur.audits.tofu import TofuReport, audit_tofu, cached_samples, check_reference, make_settings, report_tofu
from demur.audits.tofu_data import TABLES, TofuData, TofuSamples, TofuSettings
from demur.errors import UsageError

if TYPE_CHECKING:
    from demur.runs import RunFolder

__all__ = ["run_tofu", "tofu_sources"]

RoleProgress = Callable[[str, str, int, int], None]
"""Called with whose model is measured, what is being done, how much of it is done, and how much there is."""


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
        request: what to audit.
        progress: see `RoleProgress`.

    Returns:
        The folder and the reports: of the run's model, the model before and the reference, as far as there are any.

    Raises:
        UsageError: what was asked for cannot be done as asked.
    """
    request.check()
    settings = make_settings(None, request.settings)
    sources = tofu_sources(request)
    data = TofuData.read(**sources)

    def told(role: str) -> Callable[[str, int, int], None] | None:
        return None if progress is None else lambda stage, done, total: progress(role, stage, done, total)

    hashes: dict[str, str] = {}
    reference = _reference(request, data, settings, told("reference"), hashes)
    options: dict[str, Any] = {"reference": reference, "settings": settings, "seed": request.seed, "cache": True}
    reports: dict[str, TofuReport] = {}
    for role in ("run", "before"):
        lm = request.load_model(role)
        if lm is not None:
            if role == "run" and request.run is None:
                hashes["audited"] = lm.weights_hash()
            reports[role] = audit_tofu(lm, data, role=role, progress=told(role), **options)
            del lm  # the next model may need its place
    if reference is not None:
        reports["reference"] = report_tofu(reference, reference, settings, role="reference", seed=request.seed)
    folder = request.folder({"suite": settings.suite, "sources": sources, "reference": request.reference})
    for role, report in reports.items():
        report.named(folder.name).save(folder)
        if settings.compat is not None:
            report.save_open_unlearning(folder.path if role == "run" else folder.path / role)
    known = folder.state.get("hashes", {})
    folder.update_state(
        hashes={
            "data": {**known.get("data", {}), "audit": data.hash()},
            "weights": {**known.get("weights", {}), **hashes},
        }
    )
    return folder, list(reports.values())


def _reference(
    request: AuditRequest,
    data: TofuData,
    settings: TofuSettings,
    progress: Callable[[str, int, int], None] | None,
    hashes: dict[str, str],
) -> TofuSamples | None:
    """The reference's scoring pass, from a file of open-unlearning's, the cache, or the model."""
    if request.reference is None:
        return None
    path = Path(request.reference)
    if path.suffix == ".json" or (path / EVAL_FILE).is_file():
        samples = read_eval(path)
    else:
        lm = request.load_model("reference")
        assert lm is not None
        hashes["reference"] = lm.weights_hash()
        samples = cached_samples(lm, data, settings, progress)
    check_reference(samples, data, settings)
    return samples
