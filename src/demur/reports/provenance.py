"""Where numbers come from: settings, hashes, versions, seeds, times, and whether runs may be compared at all."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from demur.reports.evidence import MAIN_SUITE, Evidence, Run
from demur.reports.glossary import describe

__all__ = ["Provenance", "Setting", "differing_settings", "notices", "provenance"]

NOT_RECORDED = "not recorded"


@dataclass(frozen=True)
class Provenance:
    """What is recorded of how a run came about.

    Attributes:
        label: the run's name in the report.
        folder: where it lies.
        command: the command that repeats it, or None where none was recorded.
        recipe: its settings as YAML, which is a recipe that repeats it.
        hashes: kind ("data", "weights"), name and SHA-256 of what went in and came out.
        seeds: the seeds of training and of the bootstrap.
        versions: of the packages, in words.
        wall_time: what training and audit took, in words.
        facts: whatever else is worth a line: name and value.
    """

    label: str
    folder: str
    command: str | None
    recipe: str
    hashes: tuple[tuple[str, str, str], ...]
    seeds: str
    versions: str
    wall_time: str
    facts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Setting:
    """A setting that differs between runs: its dotted name and each run's value as text."""

    name: str
    values: tuple[str, ...]


def provenance(run: Run) -> Provenance:
    """What a run folder tells of how the run came about."""
    hashes = tuple((kind, name, value) for kind in ("data", "weights") for name, value in run.hashes(kind).items())
    facts = [("State", str(run.state["status"]))] if run.state.get("status") else []
    for role, name in (("run", "Model audited"), ("before", "Model before"), ("reference", "Gold model")):
        if run.audit(role).get("model"):
            facts.append((name, str(run.audit(role)["model"])))
    return Provenance(
        label=run.label,
        folder=str(run.folder.path),
        command=_command(run),
        recipe=yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True).strip(),
        hashes=hashes,
        seeds=_seeds(run),
        versions=_versions(run),
        wall_time=_wall_time(run),
        facts=tuple(facts),
    )


def differing_settings(evidence: Evidence) -> list[Setting]:
    """The settings in which the runs differ; none for a single run."""
    flat = [_flat(run.config) for run in evidence.runs]
    names = list(dict.fromkeys(name for settings in flat for name in settings))
    rows = [Setting(name, tuple(settings.get(name, "–") for settings in flat)) for name in names]
    return [row for row in rows if len(set(row.values)) > 1]


def notices(evidence: Evidence) -> list[str]:
    """What a reader must know before comparing: other data, other models before, other gold models, other sizes."""
    out = []
    for kind in dict.fromkeys(name for run in evidence.runs for name in run.hashes("data")):
        by_hash: dict[str, list[str]] = {}
        for run in evidence.runs:
            if kind in run.hashes("data"):
                by_hash.setdefault(run.hashes("data")[kind], []).append(run.label)
        if len(by_hash) > 1:
            groups = "; ".join(f"{', '.join(names)} ({value[:12]}…)" for value, names in by_hash.items())
            out.append(f"The runs do not share their {kind} data: {groups}. Their numbers are not about the same rows.")
    for role, name in (("before", "models before"), ("reference", "gold models")):
        models = evidence.of_role(role)
        if len(models) > 1:
            out.append(f"There are {len(models)} different {name}: each run is judged against its own.")
    for role, name in (("before", "model before"), ("reference", "gold model")):
        without = [run.label for run in evidence.runs if evidence.model(run, role) is None]
        if without and (role == "before" or len(without) < len(evidence.runs)):
            what = "how much was lost is" if role == "before" else "how much should be forgotten is"
            out.append(f"No {name} was audited for {', '.join(without)}: {what} not known.")
    other = {r.label: r.suite for r in evidence.runs if r.suite != MAIN_SUITE and r.suite.startswith(MAIN_SUITE)}
    out += [
        f"The numbers of {label} come from the suite {suite}: its definitions differ." for label, suite in other.items()
    ]
    out += _sizes(evidence)
    return out


def _sizes(evidence: Evidence) -> list[str]:
    uneven = []
    for metric in dict.fromkeys(m for model in evidence.models for m in model.results):
        results = [m.results[metric] for m in evidence.models if metric in m.results]
        sizes = {r.n + r.unscored for r in results if r.value is not None}
        if len(sizes) > 1:
            uneven.append(describe(metric).label)
    if not uneven:
        return []
    more = f" and {len(uneven) - 3} more" if len(uneven) > 3 else ""
    return [f"Not all models were measured on the same number of questions: {', '.join(uneven[:3])}{more}."]


def _command(run: Run) -> str | None:
    """The command as recorded, or the one that takes the settings file as its recipe."""
    recorded = run.state.get("command")
    if isinstance(recorded, list):
        return shlex.join(map(str, recorded))
    verb = run.config.get("command")
    if recorded or not isinstance(verb, str):
        return recorded
    return shlex.join(["demur", verb, "--recipe", str(run.folder.path / "config.yaml"), "--out", f"{run.label}-again"])


def _versions(run: Run) -> str:
    recorded = run.state.get("versions")
    versions = dict(recorded) if isinstance(recorded, Mapping) else {}
    if isinstance(run.state.get("demur"), str):
        versions = {"demur": run.state["demur"], **versions}
    return ", ".join(f"{name} {version}" for name, version in versions.items()) or NOT_RECORDED


def _wall_time(run: Run) -> str:
    parts = []
    if isinstance(run.state.get("seconds"), int | float):
        resumed = any(event.get("event") == "resumed" for event in run.events)
        parts.append(f"training {_duration(run.state['seconds'])}{' since it was last resumed' if resumed else ''}")
    audit = sum(result.seconds for result in run.results["run"].values())
    if audit:
        parts.append(f"audit {_duration(audit)}")
    return ", ".join(parts) or NOT_RECORDED


def _seeds(run: Run) -> str:
    parts = [f"training {run.config['seed']}"] if run.config.get("seed") is not None else []
    drawn = sorted({r.seed for r in run.results["run"].values() if r.seed is not None})
    parts += [f"bootstrap {', '.join(map(str, drawn))}"] if drawn else []
    return "; ".join(parts) or NOT_RECORDED


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    out: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            out |= _flat(value, f"{prefix}{name}.")
        elif str(name) != "out":
            out[f"{prefix}{name}"] = (
                yaml.safe_dump(value, default_flow_style=True, allow_unicode=True).strip().removesuffix("...").strip()
            )
    return out
