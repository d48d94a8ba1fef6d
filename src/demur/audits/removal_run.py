"""The removal suite over a run: its model, the model before it and a control, attacked with one budget."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from demur.audits.guarded import answering
from demur.audits.removal import Battery, UnlearningAudit
from demur.audits.removal_data import Intention, RemovalData, RemovalSettings
from demur.audits.request import AuditRequest, companions, evaluation_rows
from demur.audits.roles import RoleProgress, make_settings
from demur.audits.suite_report import Role
from demur.audits.suites import suites
from demur.data import read_rows
from demur.errors import UsageError
from demur.intervals import bootstrap_mean
from demur.objectives import objectives
from demur.runs import Better, Result, RunFolder

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from demur.models import LanguageModel

__all__ = ["RemovalReport", "run_removal"]

_LAYERED = ("lens", "probe", "patch_in", "patch_out")
_NAMED = {"kept_answer": "utility_answer", "kept_rouge": "utility_rouge"}
_SETS = ("forget", "retain", "holdout")
_BEHIND = "rouge, leak and asked are what the guard answered; all else is of the weights behind it, which it leaves be"
_OWN = ("full", "guard")  # settings that say which models, not how they are attacked


@dataclass(frozen=True)
class RemovalReport:
    """What the battery found of one model.

    Attributes:
        results: recoveries (of the audited model only), and what was known under each attack, in each layer.
        notes: what to know about them; with the audited model the verdict in words.
        role: whose numbers these are.
    """

    results: list[Result]
    notes: Mapping[str, str] = field(default_factory=dict)
    role: Role = "run"


@suites.register("removal")
def run_removal(request: AuditRequest, progress: RoleProgress | None = None) -> tuple[RunFolder, list[RemovalReport]]:
    """Find out whether a run removed what it was to forget, or only suppresses it.

    The reference is the control: a model that never saw the forget rows. Without one no verdict of removal is given.
    Every finished check is kept, so that an audit that was stopped goes on where it was.

    Args:
        request: what to audit; its settings are those of `RemovalSettings`, and besides `full`, the model before
            unlearning where the run does not say it, and `guard`, the folder of a guard that stands before the model.
        progress: see `RoleProgress`.

    Returns:
        The folder and the reports of the run's model, the model before, and the control where there is one.

    Raises:
        UsageError: what was asked for cannot be done as asked.
    """
    request.check()
    own = {name: request.settings[name] for name in _OWN if name in request.settings}
    options = {name: value for name, value in request.settings.items() if name not in _OWN}
    settings = make_settings(RemovalSettings, "a removal", options)
    if settings.learning_rate is None:
        rate = request.config.get("learning_rate")
        if rate is None:
            raise UsageError(
                f"{request.target} does not say how it was trained: pass --option learning_rate=RATE for relearning"
            )
        settings = dataclasses.replace(settings, learning_rate=float(rate))
    sources = _sources(request)
    rows = {name: read_rows(source) for name, source in sources.items()}
    data = RemovalData.make(rows["forget"], rows.get("retain"), rows.get("holdout"), settings)
    full, control, unlearned = _models(request, own.get("full"))
    engine = answering(unlearned, str(own["guard"]), 32) if "guard" in own else None
    hashes = {"run": unlearned.weights_hash(), "before": full.weights_hash()}
    if control is not None:
        hashes["reference"] = control.weights_hash()
    intention = settings.intention or _intention(request.config.get("objective"))
    audit = UnlearningAudit(full, control, data, settings, intention, request.seed)
    found = audit.run(unlearned, engine=engine, progress=progress)
    folder = request.folder({"suite": "removal", "sources": sources, "reference": request.reference})
    reports = [_report(found, role, folder.name) for role in ("run", "before", "reference") if role in found.tables]
    _save(folder, found, reports, own.get("guard"))
    known = folder.state.get("hashes", {})
    folder.update_state(
        hashes={
            "data": {**known.get("data", {}), "removal": data.digest},
            "weights": {**known.get("weights", {}), **({} if request.run is not None else hashes)},
        }
    )
    return folder, reports


def _sources(request: AuditRequest) -> dict[str, str]:
    """Where the rows are: as asked, else the run's, else the benchmark's."""
    trained = {name: request.config[name] for name in _SETS if request.config.get(name) is not None}
    chosen = {**trained, **request.sources}
    unknown = [name for name in chosen if name not in _SETS]
    if unknown:
        raise UsageError(f"a removal audit has no set {unknown[0]!r}: the sets are {', '.join(_SETS)}")
    if "forget" not in chosen:
        raise UsageError(f"{request.target} does not say what was to be forgotten: pass --forget")
    beside = {name: source for name, source in companions(chosen["forget"]).items() if name in _SETS}
    chosen["forget"] = evaluation_rows(chosen["forget"])
    return {**beside, **chosen}


def _models(request: AuditRequest, full: str | None) -> tuple[LanguageModel, LanguageModel | None, LanguageModel]:
    """The model before unlearning, the control, and the audited model."""
    from demur.models import load_model

    if full is not None:
        load = {name: value for name, value in request.load.items() if value is not None}
        before = load_model(full, **load)
    else:
        found = request.load_model("before")
        if found is None:
            raise UsageError(f"{request.target} does not say what it was before unlearning: pass --option full=MODEL")
        before = found
    unlearned = request.load_model("run")
    assert unlearned is not None
    return before, request.load_model("reference"), unlearned


def _intention(objective: str | None) -> Intention | None:
    """What the objective's method claims."""
    if objective is None or objective not in objectives.names():
        return None
    claimed: Intention | None = objectives.get(objective).facts.get("intention")
    return claimed


def _report(found: Battery, role: Role, run: str) -> RemovalReport:
    shared: dict[str, Any] = {"run": run, "suite": "removal", "role": role, "seed": found.seed}
    results, notes = [], {}
    if role == "run":
        for attack, estimate in found.recoveries.items():
            results.append(
                Result(
                    metric=f"recovery_{attack}",
                    value=estimate.value,
                    low=estimate.low,
                    high=estimate.high,
                    n=estimate.n,
                    unscored=estimate.unscored,
                    better="lower",
                    method="bootstrap" if estimate.method == "bootstrap" else "none",
                    **shared,
                )
            )
            if estimate.note:
                notes[f"recovery_{attack}"] = estimate.note
        verdict = found.verdict
        sentences = [line for claim in verdict.claims for line in claim.evidence]
        behind = {"guard": _BEHIND} if found.guarded else {}
        notes = {"verdict": f"{verdict.outcome}. {' '.join(sentences)}", **behind, **notes, **dict(found.skipped)}
    table = found.tables[role]
    for attack in dict.fromkeys(table["attack"]):
        rows = table[table["attack"] == attack]
        if attack in _LAYERED:
            for layer, of_layer in rows.groupby("step", sort=True):
                per_fact = of_layer.groupby("id")["knowledge"].mean().to_numpy()
                results.append(_mean(f"{attack}_{layer}", per_fact, "reference", shared))
        elif not attack.startswith("min_k"):
            better: Better = "higher" if attack in _NAMED else "reference"
            name = _NAMED.get(attack, f"knowledge_{attack}")
            results.append(_mean(name, _best(rows), better, shared))
    results += _extra(found, role, shared)
    return RemovalReport(results, notes, role)


def _best(rows: pd.DataFrame) -> NDArray[np.float64]:
    from demur.audits.recovery import attacked

    name, ids = rows["attack"].iloc[0], list(dict.fromkeys(rows["id"]))
    best: NDArray[np.float64] = attacked(rows, name, ids).mean(1)
    return best


def _mean(metric: str, values: NDArray[np.float64], better: Better, shared: Mapping[str, Any]) -> Result:
    scored = values[~np.isnan(values)]
    lost = len(values) - len(scored)
    if len(scored) < 2:
        value = float(scored.mean()) if len(scored) else None
        return Result(metric=metric, value=value, low=None, high=None, n=len(scored), unscored=lost, **shared)
    low, high = bootstrap_mean(scored, seed=shared["seed"])
    return Result(
        metric=metric, value=float(scored.mean()), low=low, high=high, n=len(scored), unscored=lost,
        better=better, **shared,
    )  # fmt: skip


def _extra(found: Battery, role: Role, shared: Mapping[str, Any]) -> list[Result]:
    """Utility, membership inference, and signs of going beyond the control."""
    table = found.tables[role]
    numbers: list[tuple[str, float | None, int, Better]] = [
        ("utility", found.utility(role), int((table["attack"] == "kept_answer").sum()), "higher"),
        ("membership_auc", found.membership(role), int(table["attack"].str.startswith("min_k").sum()), "reference"),
    ]
    if role == "run":
        numbers += [(name, value, len(found.data.facts), "zero") for name, value in found.over.items()]
    return [
        Result(metric=name, value=value, low=None, high=None, n=n, better=better, method="none", **shared)
        for name, value, n, better in numbers
        if value is not None
    ]


def _save(folder: RunFolder, found: Battery, reports: list[RemovalReport], guard: Any) -> None:
    """Results, the measurements behind them, the facts, and the verdict."""
    import pandas as pd

    measured = pd.concat([table.assign(role=role) for role, table in found.tables.items()], ignore_index=True)
    folder.write_samples("removal_measurements", measured)
    facts = [
        {"id": f.id, "prompt": f.question, "truth": f.answer, "entity": f.entity, "shown": f.shown}
        for f in found.data.facts
    ]
    folder.write_samples("removal_facts", pd.DataFrame(facts))
    for report in reports:
        folder.add_results(report.results)
        folder.log("audit", suite="removal", role=report.role, notes=dict(report.notes))
    settings = dataclasses.asdict(found.settings)
    folder.update_state(
        removal={
            **found.verdict.as_json(),
            "bands": {name: float(share) for name, share in found.bands.items()},
            "settings": settings,
            "skipped": dict(found.skipped),
            "guard": None if guard is None else str(guard),
        }
    )
