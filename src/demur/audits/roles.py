"""One suite over a run: the run's model, the model before it, and the reference, into one folder."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from demur.audits.request import AuditRequest
from demur.audits.samples import Samples
from demur.audits.suite_report import SuiteReport
from demur.errors import UsageError
from demur.registry import nearest

if TYPE_CHECKING:
    from demur.models import LanguageModel
    from demur.runs import RunFolder

__all__ = ["Progress", "RoleProgress", "Suite", "audit_roles", "make_settings"]

Progress = Callable[[str, int, int], Any]
"""Called with what is being done, how much of it is done, and how much there is."""

RoleProgress = Callable[[str, str, int, int], None]
"""Called with whose model is measured, what is being done, how much of it is done, and how much there is."""

AnySamples = TypeVar("AnySamples", bound=Samples)
AnyReport = TypeVar("AnyReport", bound=SuiteReport)
AnySettings = TypeVar("AnySettings")


@dataclass(frozen=True)
class Suite(Generic[AnySamples, AnyReport]):
    """What `audit_roles` needs of a suite that knows its rows and settings.

    Attributes:
        name: the suite's name in results.
        sources: set → where its rows are.
        data_hash: of all its rows.
        measure: makes a model's scoring pass, or finds it in the cache.
        report: computes the metrics of a pass beside the reference's; takes `role`, `seed` and `seconds` by name.
        stored: the reference's pass where `--reference` names a file that holds one, else None.
        check: refuses a reference that was measured on other rows.
        write: writes what else belongs into the folder, once results and samples are there.
        measure_run: makes the pass of the run's own model where that is not to be `measure`, for instance of a guard
            around it.
    """

    name: str
    sources: Mapping[str, str]
    data_hash: str
    measure: Callable[[LanguageModel, Progress | None], AnySamples]
    report: Callable[..., AnyReport]
    stored: Callable[[str], AnySamples | None] = lambda reference: None
    check: Callable[[AnySamples], None] = lambda reference: None
    write: Callable[[RunFolder, Mapping[str, AnyReport]], None] = lambda folder, reports: None
    measure_run: Callable[[LanguageModel, Progress | None], AnySamples] | None = None


def make_settings(kind: type[AnySettings], name: str, options: Mapping[str, Any], base: Any = None) -> AnySettings:
    """A suite's settings with some of them given by name; lists become tuples.

    Args:
        kind: the settings' class.
        name: of the suite, for messages.
        options: setting → value.
        base: settings to start from; the defaults without it.

    Raises:
        UsageError: a name is unknown or a value out of range.
    """
    known = {f.name for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for option in options:
        if option == "guard" and option not in known:
            raise UsageError(
                f"{name} audit asks for no answers, and answers are all that a guard changes: leave --guard out"
            )
        if option not in known:
            raise UsageError(f"{name} audit has no setting {option!r}: {nearest(option, known)}")
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    return dataclasses.replace(base, **given) if base is not None else kind(**given)


def audit_roles(
    request: AuditRequest, suite: Suite[AnySamples, AnyReport], progress: RoleProgress | None = None
) -> tuple[RunFolder, list[AnyReport]]:
    """Audit a run, or a plain model, and write results and samples into its folder.

    The passes of the model before and of the reference are shared with the other requests that `request.shared` is in.

    Args:
        request: what to audit.
        suite: with what.
        progress: see `RoleProgress`.

    Returns:
        The folder and the reports: of the run's model, the model before and the reference, as far as there are any.

    Raises:
        UsageError: what was asked for cannot be done as asked.
    """

    def told(role: str) -> Progress | None:
        return None if progress is None else lambda stage, done, total: progress(role, stage, done, total)

    def measured(role: str) -> tuple[AnySamples, str, float]:
        """A role's scoring pass, its model's hash, and the seconds it took."""
        lm, started = request.load_model(role), time.perf_counter()
        assert lm is not None
        measure = suite.measure_run if role == "run" and suite.measure_run is not None else suite.measure
        return measure(lm, told(role)), lm.weights_hash(), time.perf_counter() - started

    hashes: dict[str, str] = {}
    shared = ("scoring pass", suite.name, suite.data_hash)
    reference = suite.stored(request.reference) if request.reference is not None else None
    if reference is None and request.reference is not None:
        key = (*shared, request.named_model("reference"))
        reference, hashes["reference"], _ = request.shared.once(key, lambda: measured("reference"))
    if reference is not None:
        suite.check(reference)
    reports: dict[str, AnyReport] = {}
    for role in ("run", "before"):
        named = request.named_model(role)
        if named is None:
            continue
        if role == "run":
            samples, weights, seconds = measured(role)
            if request.run is None:
                hashes["audited"] = weights
        else:
            samples, _, seconds = request.shared.once((*shared, named), lambda: measured("before"))
        reports[role] = suite.report(samples, reference, role=role, seed=request.seed, seconds=seconds)
    if reference is not None:
        reports["reference"] = suite.report(reference, reference, role="reference", seed=request.seed, seconds=0.0)
    folder = request.folder({"suite": suite.name, "sources": dict(suite.sources), "reference": request.reference})
    reports = {role: report.named(folder.name) for role, report in reports.items()}
    for report in reports.values():
        report.save(folder)
    suite.write(folder, reports)
    known = folder.state.get("hashes", {})
    folder.update_state(
        hashes={
            "data": {**known.get("data", {}), "audit": suite.data_hash},
            "weights": {**known.get("weights", {}), **hashes},
        }
    )
    return folder, list(reports.values())
