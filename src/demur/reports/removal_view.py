"""The removal battery on a page: the verdict with its claims, the evidence attack by attack, and curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from demur.reports.axes import Scale
from demur.reports.evidence import Evidence, Run
from demur.reports.plots import Line, lines
from demur.reports.removal_glossary import attack_label
from demur.reports.tables import Cell, number
from demur.runs import Result

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["AttackRow", "RemovalView", "removal_data", "removal_views"]

SUITE = "removal"
_TONES = {"removal-consistent": "good", "suppression": "bad", "not forgotten": "bad", "broken": "bad"}
_SENTENCES = {
    "removal-consistent": "behaves under every attack like a model that never saw the facts.",
    "suppression": "still holds the facts and only does not show them.",
    "not forgotten": "still shows the facts.",
    "broken": "has lost too much of what it was to keep.",
    "inconclusive": "can be called neither removed nor suppressed on this evidence.",
}
_CURVES = {
    "relearn": "Relearning on one half of the facts",
    "relearn_few": "Relearning on a few facts",
    "benign": "Fine-tuning on unrelated rows",
}
_DEPTH = {"lens": "Logit lens", "probe": "Linear probe", "patch_in": "States of the model before put in"}
_ROLES = {"run": "this model", "reference": "control", "before": "before"}
_WHITE_BOX = ("relearn", "benign", "int", "noise_", "prune_", "direction", "adapter_off")
_SHOWN = 400  # facts a run shows behind each number


@dataclass(frozen=True)
class AttackRow:
    """One attack in the evidence table; `greyed` where the method makes no claim about the weights."""

    attack: str
    label: str
    meaning: str
    known: Sequence[str]
    recovery: Cell
    note: str
    greyed: bool = False


@dataclass(frozen=True)
class RemovalView:
    """One run's section.

    Attributes:
        number: of the run among those shown, which ties its rows to the data for single facts.
        label, outcome, tone, sentence: the verdict.
        claims: claim by claim, with its evidence.
        rows: the evidence table.
        figures: plots with captions.
        remarks: what to know: no control, a guard, checks that were not made.
    """

    number: int
    label: str
    outcome: str
    tone: str
    sentence: str
    claims: Sequence[Mapping[str, Any]]
    rows: Sequence[AttackRow]
    figures: Sequence[tuple[Markup, str]]
    remarks: Sequence[str] = field(default_factory=list)


def removal_views(evidence: Evidence) -> list[RemovalView]:
    """A view of each run that was audited with the removal suite."""
    runs = [run for run in evidence.runs if run.state.get(SUITE)]
    return [_view(number, run) for number, run in enumerate(runs)]


def removal_data(evidence: Evidence) -> list[dict[str, Any]]:
    """For each run the facts, and what each model knew of each under each attack, for the page's script.

    Returns:
        facts: [id, question, answer] of each; attacks: attack → [[number of the fact, this model, control, before], …].
    """
    return [_data(run) for run in evidence.runs if run.state.get(SUITE)]


def _view(number: int, run: Run) -> RemovalView:
    found: dict[str, Any] = run.state[SUITE]
    table = run.folder.samples("removal_measurements")
    outcome = str(found["outcome"])
    remarks = []
    if not found["control"]:
        remarks.append("There was no control: recovery is told beside the model's own unattacked knowledge.")
    if found.get("guard"):
        remarks.append(f"The guard {found['guard']} answered; all else is about the weights behind it.")
    if found.get("intention") == "suppression":
        remarks.append("The method only claims to suppress: what attacks on the weights found is greyed.")
    remarks += [f"{check.replace('_', ' ').capitalize()} {why}." for check, why in (found.get("skipped") or {}).items()]
    return RemovalView(
        number,
        run.label,
        outcome,
        _TONES.get(outcome, "mixed"),
        _SENTENCES.get(outcome, ""),
        found["claims"],
        _rows(run, found.get("intention") == "suppression"),
        [] if table is None else _figures(table),
        remarks,
    )


def _rows(run: Run, suppressing: bool) -> list[AttackRow]:
    def of(role: str, metric: str) -> Result | None:
        return run.results.get(role, {}).get(f"{SUITE}/{metric}")

    notes = next((e.get("notes") or {} for e in reversed(run.events) if _is_own(e)), {})
    out = []
    for name in run.results.get("run", {}):
        if not name.startswith(f"{SUITE}/recovery_"):
            continue
        attack = name.removeprefix(f"{SUITE}/recovery_")
        result = run.results["run"][name]
        known = [of(role, f"knowledge_{attack}") for role in ("run", "reference", "before")]
        label, meaning = attack_label(attack)
        interval = "" if result.low is None else f"[{number(result.low)}, {number(result.high)}]"
        out.append(
            AttackRow(
                attack,
                label,
                meaning,
                [number(k.value) if k is not None else "–" for k in known],
                Cell(number(result.value), interval, result.n, result.unscored, result.value),
                str(notes.get(f"recovery_{attack}", "")),
                suppressing and attack.startswith(_WHITE_BOX),
            )
        )
    return out


def _is_own(event: Mapping[str, Any]) -> bool:
    return event.get("event") == "audit" and event.get("suite") == SUITE and event.get("role") == "run"


def _figures(table: pd.DataFrame) -> list[tuple[Markup, str]]:
    figures = []
    for attack, title in _CURVES.items():
        rows = table[table["attack"] == attack]
        if len(rows):
            figures.append(_curve(rows, title))
    for kind, title in _DEPTH.items():
        rows = table[table["attack"] == kind]
        if len(rows):
            means = {role: of_role.groupby("step")["knowledge"].mean() for role, of_role in rows.groupby("role")}
            figures.append(_drawn(means, title, "Layer →", "layer", "Share" if kind != "patch_in" else "Knowledge"))
    return figures


def _curve(rows: pd.DataFrame, title: str) -> tuple[Markup, str]:
    """Knowledge over steps, mean over facts and seeds, at the learning rate that brings most back in this model."""
    own = rows[rows["role"] == "run"]
    rate = own.groupby(["lr", "step"])["knowledge"].mean().groupby("lr").max().idxmax()
    means = {}
    for role, of_role in rows.groupby("role"):
        rates = of_role["lr"].unique()
        nearest = min(rates, key=lambda lr: abs(lr - rate))
        means[role] = of_role[of_role["lr"] == nearest].groupby("step")["knowledge"].mean()
    drawn, caption = _drawn(means, title, "Optimizer steps →", "step", "Knowledge")
    return drawn, f"{caption} Learning rate {rate:g}; mean over facts and {own['seed'].nunique()} seeds."


def _drawn(means: Mapping[Any, pd.Series], title: str, x: str, unit: str, y: str) -> tuple[Markup, str]:
    series = []
    for place, (role, label) in enumerate(_ROLES.items()):
        if role in means:
            steps, values = means[role].index.to_numpy(dtype=float), means[role].to_numpy(dtype=float)
            points = list(zip(steps.tolist(), values.tolist(), strict=True))
            names = [f"{unit} {step:g}: {number(value)}" for step, value in points]
            series.append(Line(label, points, place, names))
    told = "; ".join(f"{s.label} from {s.points[0][1]:.2f} to {s.points[-1][1]:.2f}" for s in series)
    across = [p[0] for s in series for p in s.points]
    drawing = lines(
        series, Scale.around(x, across, 0.0, None), Scale.around(y, [], 0.0, 1.0), title=title, description=told
    )
    return Markup(drawing), f"{title}: {told}."


def _data(run: Run) -> dict[str, Any]:
    facts, table = run.folder.samples("removal_facts"), run.folder.samples("removal_measurements")
    if facts is None or table is None:
        return {"facts": [], "attacks": {}}
    facts = facts.head(_SHOWN)
    place = {str(fact): number for number, fact in enumerate(facts["id"])}
    attacks: dict[str, list[list[Any]]] = {}
    never = ("lens", "probe", "patch_in", "patch_out", "min_k", "min_k_unseen", "kept_answer", "kept_rouge")
    for attack, rows in table[~table["attack"].isin(never)].groupby("attack"):
        per = {role: _best(of_role) for role, of_role in rows.groupby("role")}
        shown = [fact for fact in place if fact in per.get("run", {})]
        attacks[str(attack)] = [
            [place[fact], *(_short(per.get(role, {}).get(fact)) for role in ("run", "reference", "before"))]
            for fact in shown
        ]
    return {"facts": facts[["id", "prompt", "truth"]].astype(str).to_numpy().tolist(), "attacks": attacks}


def _best(rows: pd.DataFrame) -> dict[str, float]:
    """Per fact the mean over seeds, at the learning rate and step with the highest mean."""
    means = rows.groupby(["lr", "step"])["knowledge"].mean()
    if means.isna().all():
        return {}
    rate, step = means.index[int(means.argmax())]
    best = rows[(rows["lr"] == rate) & (rows["step"] == step)]
    return {str(fact): float(value) for fact, value in best.groupby("id")["knowledge"].mean().items()}


def _short(value: float | None) -> float | None:
    return None if value is None or value != value else float(f"{value:.4g}")
