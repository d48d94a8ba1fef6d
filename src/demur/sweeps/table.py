"""What a sweep found: a row a trial, a point a configuration, the Pareto front, and the setting to take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from demur.errors import UsageError
from demur.files import atomic_write
from demur.runs import Better, Result, RunFolder
from demur.sweeps.pareto import dominators
from demur.sweeps.plan import Configuration, configurations
from demur.sweeps.settings import SweepSettings
from demur.sweeps.trial import MARKER, Controls, Trial, attack_options

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["KEPT", "Measured", "Point", "Sweep", "read_sweep", "recommend", "write_tables"]

KEPT = 0.95
"""Share of the gold model's utility that the recommended setting must keep."""

Name = Literal["forgetting", "utility", "resistance"]
NAMES: tuple[Name, ...] = ("forgetting", "utility", "resistance")
RECOVERY = "relearn_recovery"


@dataclass(frozen=True)
class Measured:
    """One measure of a configuration over its seeds.

    Attributes:
        mean, low, high: of its seeds' values; low and high are the smallest and the largest.
        loss: mean over the seeds of what is compared, lower is better: the distance to gold where that is good.
    """

    mean: float
    low: float
    high: float
    loss: float


@dataclass(frozen=True, eq=False)
class Point:
    """A configuration as far as it was run.

    Attributes:
        number: its place in the sweep, from 1.
        configuration: what was run.
        trials: those that are done, by seed order.
        measures: by name; a measure that a seed has no value for is absent.
        dominated_by: numbers of the configurations that are better.
        compared: whether it has every measure that any configuration has.
    """

    number: int
    configuration: Configuration
    trials: Sequence[Trial]
    measures: Mapping[Name, Measured]
    dominated_by: Sequence[int] = ()
    compared: bool = False

    @property
    def on_front(self) -> bool:
        """Whether no other configuration dominates it."""
        return self.compared and not self.dominated_by


@dataclass(frozen=True, eq=False)
class Sweep:
    """A sweep's folder, read.

    Attributes:
        settings: what was to be tried.
        folder: where it lies.
        trials: all planned trials, a row each: see `write_tables`.
        points: the configurations of which any trial is done.
        directions: measure → which way is good, as its results say.
        fixed: measure → value of "before" and "reference", where they were measured.
        missing: what is not compared because no run has it, in words.
    """

    settings: SweepSettings
    folder: Path
    trials: pd.DataFrame
    points: Sequence[Point]
    directions: Mapping[Name, Better]
    fixed: Mapping[Name, Mapping[str, float]]
    missing: Sequence[str] = ()

    @property
    def measures(self) -> list[Name]:
        """The measures that configurations are compared by."""
        return [name for name in NAMES if name in self.directions]

    @property
    def front(self) -> list[Point]:
        """The configurations that no other dominates."""
        return [point for point in self.points if point.on_front]


def planned(settings: SweepSettings, folder: Path) -> tuple[dict[Configuration, list[Trial]], Controls | None]:
    """The trials of a sweep by configuration, in the order of the seeds, and the controls of its attack.

    Raises:
        UsageError: as for `configurations`.
    """
    found = configurations(settings)
    audit, attack = settings.audit.model_dump(), None
    if settings.attack is not None:
        rates = sorted({c.settings.learning_rate for c in found})
        attack = attack_options(settings.attack, rates[(len(rates) - 1) // 2])
    trials = {}
    for configuration in found:
        trials[configuration] = [
            Trial(
                folder,
                f"{configuration.name}-{seed}",
                f"{configuration.label} seed {seed}",
                configuration.settings.model_copy(update={"seed": seed}).model_dump(),
                audit,
                attack,
            )
            for seed in settings.seeds
        ]
    controls = None
    if attack is not None:
        controls = Controls(folder, "controls", "controls", found[0].settings.model_dump(), audit, attack)
    return trials, controls


def read_sweep(folder: str | Path, seeds: int | None = None) -> Sweep:
    """Read a sweep's folder, also while the sweep is under way.

    Args:
        folder: the sweep's.
        seeds: compare configurations by so many of their seeds; by all by default.

    Raises:
        UsageError: it is no sweep's folder.
    """
    folder = Path(folder)
    if not (folder / MARKER).is_file():
        raise UsageError(f"{folder} is not a sweep's folder: it has no {MARKER}")
    settings = SweepSettings.make(folder / MARKER)
    trials, controls = planned(settings, folder)
    control = controls.record() if controls is not None else {}
    results = {
        trial: _results(trial) for of in trials.values() for trial in of if trial.record().get("status") == "done"
    }
    measures = {trial: _measures(settings, found, control) for trial, found in results.items()}
    directions, fixed = _directions(settings, results.values(), control)
    points = []
    for number, (configuration, of) in enumerate(trials.items(), 1):
        done = [trial for trial in of[:seeds] if trial in results]
        if done:
            found = {n: m for n in NAMES if (m := _over_seeds([measures[t].get(n) for t in done])) is not None}
            points.append(Point(number, configuration, done, found))
    table = _table(trials, results, measures)
    compared = _compared(points, list(directions))
    return Sweep(settings, folder, table, compared, directions, fixed, _missing(settings, directions, control))


def _missing(settings: SweepSettings, found: Mapping[Name, Better], control: Mapping[str, Any]) -> list[str]:
    out = []
    for name in NAMES:
        metric = getattr(settings.measures, name)
        if metric is None or name in found or (metric == RECOVERY and settings.attack is None):
            continue
        why = f" ({control['reason']})" if metric == RECOVERY and control.get("reason") else ""
        out.append(f"{name} is not compared: no run has a value of {metric}{why}")
    return out


def _results(trial: Trial) -> dict[str, dict[str, Result]]:
    """Role → metric → result of a finished trial; those of the final model."""
    table = RunFolder(trial.folder).results()
    out: dict[str, dict[str, Result]] = {}
    for row in table[table["epoch"].isna()].to_dict("records"):
        value: dict[str, Any] = {str(k): None if v != v else v for k, v in row.items()}
        out.setdefault(row["role"], {})[row["metric"]] = Result(**value)
    return out


def _measures(
    settings: SweepSettings, results: Mapping[str, Mapping[str, Result]], control: Mapping[str, Any]
) -> dict[Name, tuple[float, float]]:
    """Measure → value and loss of one trial."""
    out: dict[Name, tuple[float, float]] = {}
    own = results.get("run", {})
    for name in NAMES:
        metric = getattr(settings.measures, name)
        if metric == RECOVERY:
            value = _recovery(own.get("relearned_probability"), control)
            if value is not None:
                out[name] = (value, max(0.0, value))
            continue
        found, gold = own.get(metric), results.get("reference", {}).get(metric)
        if found is None or found.value is None:
            continue
        value = found.value
        if found.better == "higher":
            loss = -value
        elif found.better == "zero":
            loss = abs(value)
        else:
            loss = abs(value - gold.value) if found.better == "reference" and gold and gold.value is not None else value
        out[name] = (value, loss)
    return out


def _recovery(relearned: Result | None, control: Mapping[str, Any]) -> float | None:
    """(m − m_ref) / (m_before − m_ref), clipped to [-1, 1]; without a reference model m_ref is 0."""
    if relearned is None or relearned.value is None or "before" not in control:
        return None
    floor = control.get("reference", 0.0)
    room = control["before"] - floor
    return max(-1.0, min(1.0, (relearned.value - floor) / room)) if room > 0 else None


def _directions(
    settings: SweepSettings, results: Any, control: Mapping[str, Any]
) -> tuple[dict[Name, Better], dict[Name, dict[str, float]]]:
    directions: dict[Name, Better] = {}
    fixed: dict[Name, dict[str, float]] = {}
    for found in results:
        own = found.get("run", {})
        for name in NAMES:
            metric = getattr(settings.measures, name)
            if metric == RECOVERY:
                if "before" in control and "relearned_probability" in own:
                    directions[name] = "lower"
                    fixed[name] = {"reference": 0.0} if "reference" in control else {}
                continue
            result = own.get(metric)
            if result is not None and result.value is not None:
                directions[name] = result.better
                others = {role: found.get(role, {}).get(metric) for role in ("before", "reference")}
                fixed[name] = {role: r.value for role, r in others.items() if r is not None and r.value is not None}
    return {name: directions[name] for name in NAMES if name in directions}, fixed


def _over_seeds(values: Sequence[tuple[float, float] | None]) -> Measured | None:
    found = [value for value in values if value is not None]
    if len(found) < len(values):
        return None
    numbers = [value for value, _ in found]
    mean = sum(numbers) / len(numbers)
    return Measured(mean, min(numbers), max(numbers), sum(loss for _, loss in found) / len(found))


def _compared(points: Sequence[Point], names: Sequence[Name]) -> list[Point]:
    """The points with what dominates them."""
    from dataclasses import replace

    whole = [p for p in points if all(name in p.measures for name in names)] if names else []
    losses = [[p.measures[name].loss for name in names] for p in whole]
    found = {p: [whole[i].number for i in better] for p, better in zip(whole, dominators(losses), strict=True)}
    return [replace(p, dominated_by=found.get(p, ()), compared=p in found) for p in points]


def recommend(sweep: Sweep) -> tuple[Point | None, str]:
    """The configuration to take, and the rule that picks it.

    Of those on the front whose utility is at least `KEPT` of the reference's (of the model before, without one), the
    one that comes nearest to the reference in forgetting; ties go to the smaller recovery.

    Returns:
        The configuration, None where none keeps enough utility, and the rule in words.
    """
    wanted = sweep.fixed.get("utility", {})
    whose = "gold" if "reference" in wanted else "the model before"
    base = wanted.get("reference", wanted.get("before"))
    near = "nearest to gold" if sweep.directions.get("forgetting") == "reference" else "best"
    candidates = sweep.front
    rule = f"{near} in forgetting, of the settings that no other dominates"
    if base is not None and sweep.directions.get("utility") == "higher":
        rule += f" and that keep {KEPT:.0%} of the utility of {whose} ({KEPT * base:.3f})"
        candidates = [p for p in candidates if p.measures["utility"].mean >= KEPT * base]
    if not candidates or "forgetting" not in sweep.directions:
        return None, rule
    order: tuple[Name, ...] = ("forgetting", "resistance", "utility")
    return min(candidates, key=lambda p: [p.measures[name].loss for name in order if name in p.measures]), rule


def _table(
    trials: Mapping[Configuration, Sequence[Trial]],
    results: Mapping[Trial, Mapping[str, Mapping[str, Result]]],
    measures: Mapping[Trial, Mapping[Name, tuple[float, float]]],
) -> pd.DataFrame:
    import pandas as pd

    rows = []
    for number, (configuration, of) in enumerate(trials.items(), 1):
        for trial in of:
            record = trial.record()
            row: dict[str, Any] = {
                "trial": trial.name,
                "configuration": number,
                "setting": configuration.label,
                **configuration.varied,
                "seed": trial.settings["seed"],
                "status": record.get("status", "not run"),
                "reason": record.get("reason"),
                "seconds": record.get("seconds"),
            }
            row |= {name: value for name, (value, _) in measures.get(trial, {}).items()}
            row |= {metric: r.value for metric, r in results.get(trial, {}).get("run", {}).items()}
            rows.append(row)
    return pd.DataFrame(rows)


def write_tables(sweep: Sweep) -> list[Path]:
    """Write `trials` and `configurations` as Parquet and CSV into the sweep's folder.

    `trials` has a row a planned trial: what sets it apart, how it ended, the measures, and every metric of its audit.
    `configurations` has a row a configuration: mean, low and high of each measure over its seeds, whether it is on the
    front, and the numbers of those that dominate it.
    """
    import pandas as pd

    rows = []
    for point in sweep.points:
        row = {"configuration": point.number, **point.configuration.varied, "seeds": len(point.trials)}
        for name, found in point.measures.items():
            row |= {name: found.mean, f"{name}_low": found.low, f"{name}_high": found.high}
        rows.append({**row, "front": point.on_front, "dominated_by": " ".join(map(str, point.dominated_by))})
    written = []
    for file, table in (("trials", sweep.trials), ("configurations", pd.DataFrame(rows))):
        plain = table.apply(_one_type)
        for suffix in ("parquet", "csv"):
            path = sweep.folder / f"{file}.{suffix}"
            with atomic_write(path) as temporary:
                plain.to_parquet(temporary, index=False) if suffix == "parquet" else plain.to_csv(
                    temporary, index=False
                )
            written.append(path)
    return written


def _one_type(column: pd.Series) -> pd.Series:
    """A column of one type, as Parquet wants it: numbers stay numbers, a mixture becomes text."""
    kinds = {type(v) for v in column.dropna()}
    if len(kinds) > 1 and all(issubclass(kind, int | float) and kind is not bool for kind in kinds):
        return column.astype(float)
    if len(kinds) > 1 or kinds & {list, dict}:
        return column.map(lambda v: None if v is None or v != v else str(v))
    return column
