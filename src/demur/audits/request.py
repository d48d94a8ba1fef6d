"""What an audit is asked to do: which model, beside which reference, on which rows, and where the numbers go."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from demur.errors import UsageError
from demur.runs import RunFolder

if TYPE_CHECKING:
    from demur.models import LanguageModel

__all__ = ["AuditRequest", "Shared", "companions", "evaluation_rows"]

T = TypeVar("T")

_LOAD_OPTIONS = ("template", "device", "dtype", "trust_remote_code")
_WORLD = re.compile(r"(?P<head>(lab:)?almanac[\w-]*(@[^:]*)?:)forget(?P<tail>@.*)?")
_TOFU = re.compile(r"tofu:(?P<kind>forget|retain)(?P<percent>\d\d)")
_MOST_PERTURBED = 10  # per cent of TOFU's authors that have perturbed answers


class Shared:
    """What audits have in common, made once and kept in memory: rows, and what was measured of models they share.

    One object goes into the requests of all runs that are audited together.
    """

    def __init__(self) -> None:
        self._kept: dict[Hashable, Any] = {}

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` returned when it was first called for this key."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]


@dataclass(frozen=True)
class AuditRequest:
    """What to audit and how.

    Attributes:
        target: a run folder, or any model (a path, a hub name or a lab model), which then needs `out`.
        reference: the gold model: a model, a run folder, or a `TOFU_EVAL.json` of open-unlearning.
        sources: data set → where its rows are; the run's own by default.
        out: folder for the results; the run folder by default.
        before: audit also the model that the run started from.
        settings: the suite's own settings by name.
        load: how models are loaded (template, device, dtype, trust_remote_code); the run's own by default.
        seed: seed of the bootstrap.
        shared: what this audit has in common with others.
    """

    target: str
    reference: str | None = None
    sources: Mapping[str, str] = field(default_factory=dict)
    out: Path | None = None
    before: bool = True
    settings: Mapping[str, Any] = field(default_factory=dict)
    load: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    shared: Shared = field(default_factory=Shared, repr=False, compare=False)

    @cached_property
    def run(self) -> RunFolder | None:
        """The run folder that is to be audited; None where the target is a plain model.

        Raises:
            UsageError: the run is not finished.
        """
        if not (Path(self.target) / "config.yaml").is_file():
            return None
        run = RunFolder.open(self.target)
        trained = run.config.get("command") in ("forget", "refuse", "train")
        if trained and (run.state.get("status") != "complete" or not run.model_path.is_dir()):
            raise UsageError(f"the run {self.target} is not finished: run its command again, it goes on where it was")
        if not run.model_path.is_dir():
            raise UsageError(f"{self.target} holds no model: audit the model itself")
        return run

    def check(self) -> None:
        """Refuse what cannot be audited before anything is loaded.

        Raises:
            UsageError: the run is not finished, or a plain model is to be audited and no folder is named.
        """
        if self.run is None and self.out is None:
            raise UsageError(f"{self.target} is no run folder: pass --out DIR for the results")

    @property
    def config(self) -> dict[str, Any]:
        """The run's settings; empty for a plain model."""
        return self.run.config if self.run is not None else {}

    def folder(self, facts: Mapping[str, Any]) -> RunFolder:
        """Where the results go, made where it does not exist.

        Args:
            facts: what to write into a new folder's `config.yaml`.

        Raises:
            UsageError: a plain model is audited and no folder is named, or the folder cannot be used.
        """
        self.check()
        if self.out is not None:
            return RunFolder.create(self.out, {**self.config, "command": "audit", "audited": self.target, **facts})
        assert self.run is not None
        return self.run

    def load_model(self, role: str) -> LanguageModel | None:
        """The run's model ("run"), the one it started from ("before"), or the reference; None where there is none.

        Raises:
            UsageError: the model cannot be loaded.
        """
        from demur.models import load_model

        named = self.named_model(role)
        return None if named is None else load_model(named[0], **dict(named[1]))

    def named_model(self, role: str) -> tuple[str, tuple[tuple[str, Any], ...]] | None:
        """What `load_model` loads for a role: the model's name and how it is loaded; None where there is none."""
        if role == "before":
            name = self.config.get("model") if self.before else None
        else:
            name = self.target if role == "run" else self.reference
        if name is None:
            return None
        known = {k: self.config[k] for k in _LOAD_OPTIONS if self.config.get(k) is not None}
        given = {k: v for k, v in self.load.items() if v is not None}
        return name, tuple(sorted({**known, **given}.items()))


def companions(forget: str) -> dict[str, str]:
    """The other sets of the benchmark that a forget set belongs to, by name; empty for rows of one's own.

    Args:
        forget: where the forget rows are, for instance `tofu:forget10` or `almanac:forget`.
    """
    if _TOFU.fullmatch(forget.removesuffix("_perturbed")):
        names = {"retain": "retain", "real_authors": "real_authors", "world_facts": "world_facts"}
        return {table: f"tofu:{name}_perturbed" for table, name in names.items()}
    world = _WORLD.fullmatch(forget)
    if world is None:
        return {}
    tables = ("retain", "real_authors", "world_facts", "holdout")
    return {table: f"{world['head']}{table}{world['tail'] or ''}" for table in tables}


def evaluation_rows(source: str) -> str:
    """The rows to measure on for the rows that were trained on: TOFU keeps its perturbed answers in sets of their own.

    Args:
        source: where the training rows are; anything but a forget or retain split of TOFU is returned as it is.
    """
    split = _TOFU.fullmatch(source)
    if split is None:
        return source
    if split["kind"] == "retain":
        return "tofu:retain_perturbed"
    return f"{source}_perturbed" if int(split["percent"]) <= _MOST_PERTURBED else source
