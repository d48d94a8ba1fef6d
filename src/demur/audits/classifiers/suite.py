"""The suite for classifiers over a run: its model, the model before it, and a retrained one, on the run's own rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from demur.audits.classifiers.measured import Measured, UnlearnSplits, measure
from demur.audits.classifiers.populations import evaluate_populations, train_populations
from demur.audits.classifiers.scores import Measurement, evaluate
from demur.audits.request import AuditRequest
from demur.audits.roles import RoleProgress, make_settings
from demur.audits.suites import suites
from demur.data.labelled import split_off
from demur.data.labelled_sources import read_labelled
from demur.errors import UsageError
from demur.files import hash_json
from demur.models.classifier import load_classifier
from demur.runs import Result, RunFolder

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SUITE", "ClassifierReport", "ClassifierSettings", "requested_splits", "run_classifiers"]

SUITE = "classifier-unlearning"
FLOOR = "floor"
_SOURCES = ("data", "test", "forget")


@dataclass(frozen=True)
class ClassifierSettings:
    """How the suite measures.

    Attributes:
        floor: a second retrained model, of another seed: how far two differ that never saw the rows.
        relearn_steps: steps of training on all training rows, to see how soon the forget rows come back; 0 for none.
        relearn_rate: their learning rate.
        ensembles: models in each population for U-LiRA and KLoM; 0 for neither.
        ensemble_epochs: passes over the rows in the training of each of them.
    """

    floor: str | None = None
    relearn_steps: int = 120
    relearn_rate: float = 0.01
    ensembles: int = 0
    ensemble_epochs: int = 12

    def __post_init__(self) -> None:
        if self.relearn_steps < 0 or self.relearn_rate <= 0 or self.ensembles < 0 or self.ensemble_epochs < 1:
            raise UsageError("relearning and ensembles need steps, rates and numbers of models that are not negative")


@dataclass(frozen=True)
class ClassifierReport:
    """What was found of one model.

    Attributes:
        role: whose numbers these are: "run", "before", "reference", or "floor" for a second retrained model.
        measurements: a metric each.
        results: the same as rows of a run folder.
        curve: accuracy on the forget rows before each step of relearning.
    """

    role: str
    measurements: Sequence[Measurement]
    results: list[Result]
    curve: Sequence[float] = ()

    @property
    def notes(self) -> Mapping[str, str]:
        """Metric → why it has no value, or what to know about it."""
        return {m.metric: m.note for m in self.measurements if m.note}

    @property
    def summary(self) -> dict[str, float]:
        """Metric → value, of those that have one."""
        return {m.metric: m.value for m in self.measurements if m.value is not None}


@dataclass
class _Audit:
    """One request under way."""

    request: AuditRequest
    settings: ClassifierSettings
    splits: UnlearnSplits
    rows: str
    progress: RoleProgress | None
    hashes: dict[str, str] = field(default_factory=dict)

    def told(self, role: str, stage: str, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress(role, stage, done, total)

    def measured(self, role: str) -> Measured | None:
        """What a role's model says; models that audits share are measured once."""
        name = self._name(role)
        if name is None:
            return None
        self.told(role, "measuring", 0, 1)
        model = load_classifier(name)
        model.require_reads(self.splits.retain)
        weights = model.weights_hash()
        self.hashes[role] = weights
        steps, rate = self.settings.relearn_steps, self.settings.relearn_rate

        def make() -> Measured:
            options = {"relearn_steps": steps, "relearn_rate": rate, "seconds": _seconds(name)}
            return measure(model, self.splits, seed=self.request.seed, **options)  # type: ignore[arg-type]

        found = self.request.shared.once((SUITE, self.rows, weights, steps, rate, name), make)
        self.told(role, "measuring", 1, 1)
        return found

    def _name(self, role: str) -> str | None:
        if role == FLOOR:
            return self.settings.floor
        named = self.request.named_model(role)
        return None if named is None else named[0]

    def populations(self) -> list[Measurement]:
        """U-LiRA and KLoM over ensembles, where they were asked for."""
        if not self.settings.ensembles:
            return []
        config = self.request.config
        if "method" not in config:
            raise UsageError(f"{self.request.target} does not say how it forgot: ensembles need a run of demur forget")

        def stage(what: str, done: int, total: int) -> None:
            self.told("ensembles", what, done, total)

        found = train_populations(
            load_classifier(config["model"]),
            self.splits,
            config["method"],
            config.get("options") or {},
            self.settings.ensembles,
            epochs=self.settings.ensemble_epochs,
            progress=stage,
        )
        return evaluate_populations(found, self.request.seed)


@suites.register(SUITE)
def run_classifiers(
    request: AuditRequest, progress: RoleProgress | None = None
) -> tuple[RunFolder, list[ClassifierReport]]:
    """Audit a run of `demur forget --task image-classification` or `tabular`, or any classifier.

    Args:
        request: what to audit; rows are the run's own, or those of the sources `data` (the training rows), `test` and
            `forget` (as `split_off` takes it); the reference is a classifier retrained without the forget rows.
        progress: see `RoleProgress`.

    Returns:
        The folder and the reports: of the run's model, the model before, the retrained one and a second one, as far as
        there are any.

    Raises:
        UsageError: what was asked for cannot be done as asked.
    """
    request.check()
    settings = make_settings(ClassifierSettings, f"a {SUITE}", request.settings)
    splits, sources = requested_splits(request)
    rows = hash_json([[name, data.hash()] for name, data in splits.by_name.items()])
    audit = _Audit(request, settings, splits, rows, progress)
    own, before, reference, floor = (audit.measured(role) for role in ("run", "before", "reference", FLOOR))
    assert own is not None
    found = {
        "run": [*evaluate(own, splits, reference, original=before, seed=request.seed), *audit.populations()],
        "before": before and evaluate(before, splits, reference, original=before, seed=request.seed),
        "reference": reference and evaluate(reference, splits, original=before, seed=request.seed),
        FLOOR: floor and evaluate(floor, splits, reference, original=before, seed=request.seed),
    }
    curves = dict(zip(found, (own, before, reference, floor), strict=True))
    folder = request.folder({"suite": SUITE, "sources": sources, "reference": request.reference})
    reports = [
        _report(role, measurements, curves[role], folder.name, request.seed)
        for role, measurements in found.items()
        if measurements
    ]
    _save(folder, reports, audit)
    return folder, reports


def requested_splits(
    request: AuditRequest, suite: str = SUITE, others: bool = False
) -> tuple[UnlearnSplits, dict[str, str]]:
    """The rows that a request names or its run was made with, and where they are.

    Args:
        request: what to audit.
        suite: for messages.
        others: sets of other names are accepted too, and left to the caller.

    Raises:
        UsageError: rows are not named, cannot be read, or do not go together.
    """
    config = request.config
    unknown = [name for name in request.sources if name not in _SOURCES]
    if unknown and not others:
        raise UsageError(f"a {suite} audit has no set {unknown[0]!r}: the sets are {', '.join(_SOURCES)}")
    sources = {name: config[name] for name in _SOURCES if config.get(name)} | dict(request.sources)
    for name, how in {"data": "--rows data=SOURCE", "test": "--rows test=SOURCE", "forget": "--forget class:3"}.items():
        if name not in sources:
            raise UsageError(f"{request.target} does not say its {name} rows: pass {how}")
    target = config.get("target")
    data = request.shared.once(("labelled", sources["data"], target), lambda: read_labelled(sources["data"], target))
    test = request.shared.once(
        ("labelled", sources["test"], target, sources["data"]),
        lambda: read_labelled(sources["test"], target, like=data),
    )
    kept = request.run.path / "forget.npy" if request.run is not None else Path("forget.npy")
    own = request.run is not None and "forget" not in request.sources and "data" not in request.sources
    what = f"rows:{kept}" if own and kept.is_file() else sources["forget"]
    return UnlearnSplits.of(split_off(data, what, config.get("seed", request.seed)), test), sources


def _seconds(name: str) -> float | None:
    """What the method of a run took, without loading, measuring and saving."""
    if not (Path(name) / "config.yaml").is_file():
        return None
    found = (RunFolder(name).state.get("facts") or {}).get("seconds")
    return None if found is None else float(found)


def _report(
    role: str, measurements: Sequence[Measurement], measured: Measured | None, run: str, seed: int
) -> ClassifierReport:
    results = [
        Result(
            run=run,
            suite=SUITE,
            metric=m.metric,
            value=m.value,
            low=m.low,
            high=m.high,
            n=m.n,
            role=role,  # type: ignore[arg-type]
            better=m.better,
            method=m.method,  # type: ignore[arg-type]
            seed=seed,
        )
        for m in measurements
    ]
    way = None if measured is None else measured.relearning
    return ClassifierReport(role, measurements, results, () if way is None else way.accuracy)


def _save(folder: RunFolder, reports: Sequence[ClassifierReport], audit: _Audit) -> None:
    """Results, the table with gaps, the curves, and the hashes."""
    import pandas as pd

    folder.write_samples("classifier_unlearning_metrics", _table(reports))
    folder.write_samples(
        "classifier_unlearning_relearning",
        pd.DataFrame(
            [
                {"role": report.role, "step": step, "accuracy": accuracy}
                for report in reports
                for step, accuracy in enumerate(report.curve)
            ],
            columns=["role", "step", "accuracy"],
        ),
    )
    for report in reports:
        if report.role != FLOOR:
            folder.add_results(report.results)
        folder.log("audit", suite=SUITE, role=report.role, notes=dict(report.notes))
    known = folder.state.get("hashes", {})
    folder.update_state(
        hashes={
            "data": {**known.get("data", {}), "audit": audit.rows},
            "weights": {**known.get("weights", {}), **{k: v for k, v in audit.hashes.items() if k == "reference"}},
        }
    )


def _table(reports: Sequence[ClassifierReport]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(
        [
            {
                "role": report.role,
                "metric": m.metric,
                "value": m.value,
                "low": m.low,
                "high": m.high,
                "n": m.n,
                "better": m.better,
                "reference": m.reference,
                "gap": m.gap,
                "note": m.note,
            }
            for report in reports
            for m in report.measurements
        ]
    )
