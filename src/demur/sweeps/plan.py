"""From the settings of a sweep to the configurations that it tries."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from demur.errors import UsageError
from demur.files import hash_json
from demur.objectives import objectives, roles
from demur.registry import nearest
from demur.sweeps.settings import SweepSettings
from demur.training import ForgetSettings, Objective

__all__ = ["Configuration", "configurations"]

_MOST = 10_000  # configurations; more than anyone waits for is a slip
_FIXED = {
    "model": "one sweep is about one model",
    "forget": "one sweep is about one forget set",
    "retain": "the audits of all trials are to be compared",
    "holdout": "the audits of all trials are to be compared",
    "objective": "list the objectives under objectives",
    "objective_options": "write OBJECTIVE.OPTION, for instance npo.beta",
    "seed": "list the seeds under seeds",
    **dict.fromkeys(
        ("template", "device", "dtype", "save_steps", "trust_remote_code", "allow_overlap"),
        "set it once for all trials under settings",
    ),
}
"""Settings that a sweep does not vary, and what to do instead."""


@dataclass(frozen=True, eq=False)
class Configuration:
    """One point of the grid: everything that decides a run but its seed.

    Attributes:
        settings: of the run; its seed is the first one.
        varied: what sets it apart from the others: the objective's name, and settings and options by name.
    """

    settings: ForgetSettings
    varied: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Hash of the settings without the seed."""
        return hash_json(self.settings.model_dump(exclude={"seed"}))[:12]

    @property
    def label(self) -> str:
        """How it is called in tables: "npo beta=0.1 learning_rate=0.0005"."""
        words = [f"{name}={value}" for name, value in self.varied.items() if name != "objective"]
        return " ".join([self.settings.objective, *words])

    @property
    def cost(self) -> float:
        """What a run of it costs beside the others of the sweep: passes over the same rows."""
        return float(self.settings.epochs)


def configurations(sweep: SweepSettings) -> list[Configuration]:
    """Every configuration of the grid, or as many drawn from it as `samples` says; each once.

    Raises:
        UsageError: an objective, an option or a setting is unknown, out of range or not one to vary; rows that an
            objective needs are not named; or there are more than ten thousand configurations.
    """
    for name in ("objective", "objective_options", "seed"):
        if name in sweep.settings:
            raise UsageError(f"a sweep does not take {name!r} under settings: {_FIXED[name]}")
    axes = {objective: _axes(sweep, objective) for objective in sweep.objectives}
    for key in sweep.grid:
        owner, dot, _ = key.partition(".")
        if dot and owner not in axes:
            raise UsageError(f"grid {key!r}: {owner!r} is not among the objectives ({', '.join(axes)})")
    size = sum(math.prod(len(values) for values in found.values()) for found in axes.values())
    if size > _MOST:
        raise UsageError(f"the grid has {size} configurations, more than {_MOST}: leave some values out")
    found: dict[str, Configuration] = {}
    for objective, axis in axes.items():
        for values in itertools.product(*axis.values()):
            made = _configuration(sweep, objective, dict(zip(axis, values, strict=True)))
            found.setdefault(made.name, made)
    drawn = list(found.values())
    if sweep.samples is not None and sweep.samples < len(drawn):
        kept = sorted(random.Random(sweep.sample_seed).sample(range(len(drawn)), sweep.samples))
        drawn = [drawn[i] for i in kept]
    return drawn


def _axes(sweep: SweepSettings, objective: str) -> dict[str, list[Any]]:
    """What is varied for one objective: a setting, or an option of the objective, to its values.

    A value for one objective alone (`npo.learning_rate`) takes the place of one for all (`learning_rate`).
    """
    options = objectives.get(objective).options
    shared = {key: values for key, values in sweep.grid.items() if "." not in key}
    own = {
        key.partition(".")[2]: v for key, v in sweep.grid.items() if key.partition(".")[0] == objective and "." in key
    }
    for name in own:
        if name not in options:
            _require_setting(name, f"grid '{objective}.{name}'", [*options, *ForgetSettings.model_fields])
    for name in shared:
        if name in options and name not in ForgetSettings.model_fields:
            raise UsageError(f"grid {name!r} is an option of an objective: write {objective}.{name}")
        _require_setting(name, f"grid {name!r}", list(ForgetSettings.model_fields))
    return {**shared, **own}


def _require_setting(name: str, where: str, known: list[str]) -> None:
    if name in _FIXED:
        raise UsageError(f"{where} cannot be swept: {_FIXED[name]}")
    if name not in ForgetSettings.model_fields:
        raise UsageError(f"{where} is no setting: {nearest(name, set(known) - set(_FIXED))}")


def _configuration(sweep: SweepSettings, objective: str, values: dict[str, Any]) -> Configuration:
    component = objectives.get(objective)
    options = {name: value for name, value in values.items() if name in component.options}
    rest = {name: value for name, value in values.items() if name not in options}
    asked = {**sweep.settings, **rest}
    settings = ForgetSettings.make(objective=objective, objective_options=options, seed=sweep.seeds[0], **asked)
    typed = Objective.make(
        objective, options, settings.retain_objective, settings.forget_weight, settings.retain_weight
    )
    if "forget" not in roles(component):
        raise UsageError(f"objective {objective!r} works on {', '.join(roles(component))} rows, not on a forget set")
    if "retain" in typed.roles and settings.retain is None:
        raise UsageError(f"objective {objective!r} needs retain rows: pass --retain, or settings.retain in the recipe")
    settings = settings.model_copy(update={"objective_options": dict(typed.options)})
    varied = {name: typed.options.get(name, getattr(settings, name, None)) for name in values}
    return Configuration(settings, {"objective": objective, **varied})
