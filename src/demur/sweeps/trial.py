"""One trial of a sweep: forget, audit, attack, report; and the controls that all trials are read against."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demur.errors import UsageError
from demur.files import hash_json, write_json
from demur.processes import Progress
from demur.registry import nearest

if TYPE_CHECKING:
    from demur.models import LanguageModel
    from demur.runs import Result

__all__ = ["ATTACK", "MARKER", "Controls", "Trial", "attack_options"]

MARKER = "sweep.yaml"
"""The file that makes a folder a sweep's."""

ATTACK: dict[str, Any] = {"learning_rate": None, "steps": [15, 60], "batch_size": 8}
"""Options of the relearning attack: the rate (the sweep's median by default), the optimizer steps after which knowledge
is measured (the most found counts), and the facts in a step."""

_TRAINING = 0.7  # share of a trial's time that its progress gives to training


def attack_options(given: Mapping[str, Any], learning_rate: float) -> dict[str, Any]:
    """The attack's options with their defaults.

    Raises:
        UsageError: one is unknown or out of range.
    """
    for name in given:
        if name not in ATTACK:
            raise UsageError(f"the relearning attack has no option {name!r}: {nearest(name, ATTACK)}")
    out = {**ATTACK, "learning_rate": learning_rate, **given}
    steps = out["steps"] if isinstance(out["steps"], list) else [out["steps"]]
    whole = [*steps, out["batch_size"]]
    if not steps or any(not isinstance(n, int) or n < 1 for n in whole) or steps != sorted(set(steps)):
        raise UsageError("the relearning attack needs ascending steps and a batch size, whole numbers of 1 or more")
    try:
        out["learning_rate"] = float(out["learning_rate"])
    except (TypeError, ValueError):
        out["learning_rate"] = 0.0
    if not out["learning_rate"] > 0:
        raise UsageError(f"the relearning attack's learning_rate must be positive, not {given['learning_rate']!r}")
    return {**out, "steps": steps}


@dataclass(frozen=True, eq=False)
class _Work:
    """What trials and controls have in common: a record that says how it ended, and places beside it."""

    sweep: Path
    name: str
    label: str
    settings: Mapping[str, Any]
    audit: Mapping[str, Any]
    attack: Mapping[str, Any] | None

    @property
    def file(self) -> Path:
        """The record of how it ended."""
        return self.sweep / "trials" / f"{self.name}.json"

    @property
    def log(self) -> Path:
        """What its process printed."""
        return self.file.with_suffix(".log")

    @property
    def work(self) -> Path:
        """Its temporary files, gone when it ends."""
        return self.file.with_suffix(".work")

    @property
    def wanted(self) -> str:
        """Hash of what is measured: a trial that was measured otherwise is measured again, not trained again."""
        return hash_json([self.audit, self.attack])[:12]

    def record(self) -> dict[str, Any]:
        """How it ended; empty where it has not, or was measured otherwise."""
        try:
            found = json.loads(self.file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if found.get("wanted") == self.wanted else {}

    def write_record(self, status: str, **facts: Any) -> None:
        """Say how it ended."""
        write_json(self.file, {"label": self.label, "status": status, "wanted": self.wanted, **facts})

    def require_folder(self) -> None:
        """Refuse to work where the sweep's folder is not the one that the command sees.

        Raises:
            UsageError: it is another one, or absent.
        """
        if not (self.sweep / MARKER).is_file():
            import socket

            raise UsageError(
                f"{socket.gethostname()} does not see the sweep's folder {self.sweep}: choose an --out that all "
                "machines of the cluster share"
            )

    def forget_rows(self) -> str:
        """Where the rows are that the attack is about."""
        return self.settings["forget"]


class Trial(_Work):
    """One configuration under one seed; its run folder is named by the hash of its settings."""

    @property
    def folder(self) -> Path:
        """Its run folder."""
        return self.sweep / "trials" / self.name

    @property
    def cost(self) -> float:
        """What it costs beside other trials: passes over the same rows."""
        return float(self.settings["epochs"])

    def run(self, progress: Progress) -> tuple[str, str]:
        """Forget, audit, attack and report; what was done before is not done again."""
        from demur.audits import AuditRequest
        from demur.audits.suites import suites
        from demur.reports import write_report
        from demur.training import ForgetSettings, forget

        self.require_folder()
        began = time.monotonic()
        settings = ForgetSettings.make(**self.settings)
        run = forget(
            settings,
            self.folder,
            lambda lm, epoch: progress(_TRAINING * epoch / settings.epochs, 1, f"epoch {epoch:g}"),
        )
        options = self.audit
        request = AuditRequest(
            str(run.path), options["reference"], options["rows"], settings=options["options"], seed=settings.seed
        )
        suites.get(options["suite"]).function(
            request, lambda role, stage, done, total: progress(_TRAINING, 1, f"{role}: {stage}")
        )
        if self.attack is not None:
            progress(0.9, 1, "relearning")
            lm = request.load_model("run")
            assert lm is not None
            run.add_results([_relearned(lm, self.forget_rows(), self.attack, run.name, settings.seed)])
        write_report([run], run.path / "report.html")
        self.write_record("done", seconds=round(time.monotonic() - began, 2))
        return "done", ""


class Controls(_Work):
    """What the attack is read against: what the model before knew, and what it teaches the reference model."""

    def run(self, progress: Progress) -> tuple[str, str]:
        """Measure both."""
        from demur.audits import AuditRequest

        self.require_folder()
        assert self.attack is not None
        load = {k: self.settings[k] for k in ("template", "device", "dtype", "trust_remote_code")}
        request = AuditRequest(self.settings["model"], self.audit["reference"], load=load)
        before = request.load_model("run")
        assert before is not None
        found = {"before": _known(before, self.forget_rows())}
        del before
        progress(0.5, 1, "relearning of the reference")
        if controlled(self.audit["reference"]):
            gold = request.load_model("reference")
            assert gold is not None
            found["reference"] = _relearned(gold, self.forget_rows(), self.attack, "", 0).value or 0.0
        self.write_record("done", **found)
        return "done", ""


def controlled(reference: str | None) -> bool:
    """Whether there is a reference model to attack, and not only its results."""
    return reference is not None and not (reference.endswith(".json") or (Path(reference) / "TOFU_EVAL.json").is_file())


def _halves(lm: LanguageModel, source: str) -> tuple[list[Any], list[Any]]:
    """The facts that the attacker has, and the others, on which the attack is measured."""
    from demur.audits.removal_data import RemovalData
    from demur.data import read_rows
    from demur.models import encode

    facts = RemovalData.make(read_rows(source))
    shown, measured = (
        encode(lm, [f.question for f in half], [f.answer for f in half], [f.id for f in half])
        for half in (facts.shown, facts.measured)
    )
    return shown, measured


def _known(lm: LanguageModel, source: str) -> float:
    from demur.attacks import answer_probability

    return float(answer_probability(lm, _halves(lm, source)[1]).mean())


def _relearned(lm: LanguageModel, source: str, attack: Mapping[str, Any], run: str, seed: int) -> Result:
    """Mean probability of the answers that the attacker did not have, at the step where it is highest."""
    from demur.attacks import relearn_attack
    from demur.intervals import bootstrap_mean
    from demur.runs import Result

    began = time.monotonic()
    shown, measured = _halves(lm, source)
    curve = relearn_attack(
        lm,
        shown,
        measured,
        learning_rate=attack["learning_rate"],
        steps=attack["steps"],
        batch_size=attack["batch_size"],
        seed=seed,
    )
    best = max(curve.values(), key=lambda values: float(values.mean()))
    low, high = bootstrap_mean(best, seed=seed)
    return Result(
        run,
        "relearning",
        "relearned_probability",
        float(best.mean()),
        low,
        high,
        len(best),
        better="reference",
        seed=seed,
        seconds=round(time.monotonic() - began, 2),
    )
