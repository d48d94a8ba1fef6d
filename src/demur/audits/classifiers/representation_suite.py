"""The suite `representation` over a run: whether its features still know what its answers forgot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from demur.audits.classifiers.representation import ALL, Aggregate, Representation, RepresentationAudit
from demur.audits.classifiers.suite import requested_splits
from demur.audits.request import AuditRequest
from demur.audits.roles import RoleProgress, make_settings
from demur.audits.suites import suites
from demur.data.labelled_sources import read_labelled
from demur.errors import UsageError
from demur.files import hash_json
from demur.intervals import clopper_pearson
from demur.models.classifier import Classifier, load_classifier
from demur.probes.similarity import Estimator, Kernel
from demur.runs import Better, Result, RunFolder, finite

if TYPE_CHECKING:
    from demur.data.labelled import Labelled

__all__ = ["SUITE", "RepresentationReport", "RepresentationSettings", "run_representation"]

SUITE = "representation"
CEILING = "ceiling"
_OWN = ("data", "test", "forget")
_BETTER: dict[str, Better] = {"agl": "higher", "agr": "higher", "h_lr": "higher", "cka_retrained": "higher"}


@dataclass(frozen=True)
class RepresentationSettings:
    """How the suite measures.

    Attributes:
        original: the model before; the one that the run started from by default.
        floor: a second retrained model, of another seed: no model can be expected to come nearer to the first.
        k: neighbours.
        kernel, estimator, batch: of CKA, see `probes.cka`.
        aggregate: how AGR takes sets together: product or mean.
        layers: names of modules to compare too.
    """

    original: str | None = None
    floor: str | None = None
    k: int = 5
    kernel: Kernel = "linear"
    estimator: Estimator = "biased"
    batch: int | None = None
    aggregate: Aggregate = "product"
    layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.layers, str):
            object.__setattr__(self, "layers", tuple(name.strip() for name in self.layers.split(",")))
        if self.k < 1 or (self.batch is not None and self.batch < 2):
            raise UsageError("k must be at least 1 and batch at least 2")


@dataclass(frozen=True)
class RepresentationReport:
    """What was found of one model.

    Attributes:
        role: whose numbers these are: "run", "before", "reference", or "ceiling" for a second retrained model.
        found: the numbers and what they are made of.
        results: the same as rows of a run folder.
        notes: metric → why it has no value.
    """

    role: str
    found: Representation
    results: list[Result]
    notes: Mapping[str, str]

    @property
    def summary(self) -> dict[str, float]:
        """Metric → value, of those that have one."""
        return {r.metric: r.value for r in self.results if r.value is not None}


@suites.register(SUITE)
def run_representation(
    request: AuditRequest, progress: RoleProgress | None = None
) -> tuple[RunFolder, list[RepresentationReport]]:
    """Audit the features of a run of `demur forget --task image-classification`, or of any classifier.

    Args:
        request: what to audit; the reference, a classifier retrained without the forget rows, is needed. Its sources
            `data`, `test` and `forget` are the run's own by default; any other is a downstream set of that name.
        progress: see `RoleProgress`.

    Returns:
        The folder and the reports: of the run's model, the model before, the retrained one and a second one, as far as
        there are any.

    Raises:
        UsageError: what was asked for cannot be done as asked.
    """
    request.check()
    settings = make_settings(RepresentationSettings, f"a {SUITE}", request.settings)
    if request.reference is None:
        raise UsageError(f"a {SUITE} audit compares features with a retrained model's: pass --reference GOLD")
    splits, sources = requested_splits(request, SUITE, others=True)
    downstream = {name: _downstream(request, source) for name, source in sources.items() if name not in _OWN}
    named = {role: request.named_model(role) for role in ("run", "before", "reference")}
    names = {role: None if found is None else found[0] for role, found in named.items()}
    names |= {"before": settings.original or names["before"], CEILING: settings.floor}
    models: dict[str, Classifier] = {}
    for role, name in names.items():
        if name is not None:
            models[role] = load_classifier(name)
            models[role].require_reads(splits.retain)
    kept = ("k", "kernel", "estimator", "batch", "aggregate", "layers")
    options: dict[str, Any] = {name: getattr(settings, name) for name in kept}
    audit = RepresentationAudit(splits, models["reference"], models.get("before"), downstream, **options)
    folder = request.folder({"suite": SUITE, "sources": sources, "reference": request.reference})
    reports: list[RepresentationReport] = []
    for role, model in models.items():
        if progress is not None:
            progress(role, "measuring", len(reports), len(models))
        reports.append(_report(role, audit.run(model), folder.name, request.seed))
    data = {name: rows.hash() for name, rows in audit.sets.items()}
    _save(folder, reports, hash_json(data), {"reference": models["reference"].weights_hash()})
    return folder, reports


def _downstream(request: AuditRequest, source: str) -> Labelled:
    return request.shared.once(("labelled", source, None), partial(read_labelled, source))


def _report(role: str, found: Representation, run: str, seed: int) -> RepresentationReport:
    results, notes = [], {}
    hits = {f"accuracy:{name}": values for name, values in found.correct.items()}
    hits |= {f"knn:{name}": values for name, values in found.knn_correct.items()}
    empty = Result(run, SUITE, "", None, None, None, 0, role=role, method="none", seed=seed)  # type: ignore[arg-type]
    for metric, value in found.summary.items():
        better = _BETTER.get(metric.partition(":")[0], "reference")
        rows = found.rows.get(metric.partition(":")[2], found.rows[ALL])
        result = replace(empty, metric=metric, value=finite(value), better=better, n=rows)
        if metric in hits:
            right, n = int(np.sum(hits[metric])), len(hits[metric])
            low, high = clopper_pearson(right, n)
            result = replace(result, low=low, high=high, n=n, method="exact")
        if result.value is None:
            notes[metric] = "the features of a set are the same for every row"
        results.append(result)
    return RepresentationReport(role, found, results, notes)


def _save(folder: RunFolder, reports: list[RepresentationReport], data: str, weights: Mapping[str, str]) -> None:
    import pandas as pd

    rows = [
        {"role": report.role, "metric": r.metric, "value": r.value, "low": r.low, "high": r.high, "n": r.n}
        for report in reports
        for r in report.results
    ]
    folder.write_samples(SUITE, pd.DataFrame(rows))
    for report in reports:
        if report.role != CEILING:
            folder.add_results(report.results)
        folder.log("audit", suite=SUITE, role=report.role, notes=dict(report.notes))
    known = folder.state.get("hashes", {})
    hashes = {"data": {**known.get("data", {}), "audit": data}, "weights": {**known.get("weights", {}), **weights}}
    folder.update_state(hashes=hashes)
