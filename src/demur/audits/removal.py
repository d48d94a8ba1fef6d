"""Removal or only suppression: a battery of attacks on an unlearned model, and a verdict with its evidence.

After the survey of Ren et al. 2025 (arXiv 2506.09227), which asks that an evaluation match what a method claims. A
model from which knowledge was removed behaves under attack like a control that never had it; one that only suppresses
it gives it back. The control is always attacked with the same budget.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from demur.attacks import adapter_detached
from demur.attacks.adapters import has_adapter
from demur.audits.estimates import Estimate
from demur.audits.membership import auc, privleak
from demur.audits.recovery import attacked, recovery
from demur.audits.removal_checks import NeedsMore, Subject, measure
from demur.audits.removal_data import CHECKS, Intention, RemovalData, RemovalSettings
from demur.audits.removal_verdict import Evidence, Verdict, judge_removal
from demur.audits.samples import Samples, cached_pass
from demur.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from demur.models import Engine, LanguageModel

__all__ = ["Battery", "UnlearningAudit", "removal_battery"]

Progress = Callable[[str, int, int], Any]
_VERSION = 1  # of what the checks measure; raising it makes every cached one stale
_AGAINST_FULL = ("direction", "patching")  # checks that also look at the model before
_FOR_FULL = ("behaviour", "relearn", "lens", "probe", "membership")  # what is measured of that model itself
_CURVES = ("relearn", "relearn_few", "benign")
_ANSWERED = ("behaviour", "asking", "sampling")  # what a guard answers, where there is one
_ROUGE = ("rouge", "leak_", "asked_")  # attacks, by the beginning of their names, that are told by what was answered


def removal_battery(
    lm: LanguageModel,
    data: RemovalData,
    settings: RemovalSettings,
    *,
    before: LanguageModel | None = None,
    engine: Engine | None = None,
    guarded: bool = False,
    checks: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Measure one model with the battery; each finished check is kept on disk and not made again.

    Args:
        lm: the model; adapters are merged into its weights.
        data: the rows.
        settings: the budget, with its learning rate.
        before: the model before unlearning, for the checks that compare states with it.
        engine: answers in the model's place, for instance a guard around it; such checks are not cached.
        guarded: where prompts are attacked, also read what is answered to them: what to compare a guard's answers with.
        checks: those of the settings by default.
        progress: told the check, how many are done and how many there are.

    Returns:
        One row a measurement (attack, seed, lr, step, id, knowledge), and check → why it was not made.
    """
    import pandas as pd

    wanted = [c for c in (checks or CHECKS) if c == "behaviour" or c in settings.checks]
    wanted += ["asking"] if guarded and "prompts" in wanted else []
    tables, skipped = [], {}
    if has_adapter(lm) and "behaviour" in wanted:
        with adapter_detached(lm):
            tables.append(_adapter_off(lm, data))
    lm = _merged(lm)
    subject = Subject(lm, data, settings, before, engine)
    for done, check in enumerate(wanted):
        if progress is not None:
            progress(check, done, len(wanted))
        parts = [_VERSION, check, data.digest, dataclasses.asdict(dataclasses.replace(settings, checks=()))]
        if check in _AGAINST_FULL and before is not None:
            parts.append(before.weights_hash())
        try:
            if engine is not None and check in _ANSWERED:
                tables.append(measure(check, subject))
            else:
                found = cached_pass(Samples, lm, parts, lambda: Samples({"table": measure(check, subject)}))  # noqa: B023
                tables.append(found.tables["table"])
        except NeedsMore as reason:
            skipped[check] = str(reason)
    if progress is not None:
        progress("done", len(wanted), len(wanted))
    return pd.concat(tables, ignore_index=True), skipped


def _adapter_off(lm: LanguageModel, data: RemovalData) -> pd.DataFrame:
    import pandas as pd

    from demur.attacks import answer_probability
    from demur.models import encode

    facts = data.facts
    known = answer_probability(lm, encode(lm, [f.question for f in facts], [f.answer for f in facts]))
    ids = [f.id for f in facts]
    return pd.DataFrame({"attack": "adapter_off", "seed": 0, "lr": 0.0, "step": 0, "id": ids, "knowledge": known})


def _merged(lm: LanguageModel) -> LanguageModel:
    """The model with its adapter in its weights."""
    if not has_adapter(lm):
        return lm
    model: Any = lm.model
    return dataclasses.replace(lm, model=model.merge_and_unload().eval())


@dataclass(frozen=True)
class Battery:
    """What the battery found of an unlearned model, a control and the model before.

    Attributes:
        data, settings: the rows and the budget.
        tables: "run", "before" and, where there is a control, "reference" → measurements.
        skipped: check → why it was not made.
        intention: what the method claims.
        guarded: whether a guard answered in the model's place.
        seed: of the bootstrap.
    """

    data: RemovalData
    settings: RemovalSettings
    tables: Mapping[str, pd.DataFrame]
    skipped: Mapping[str, str] = field(default_factory=dict)
    intention: str | None = None
    guarded: bool = False
    seed: int = 0

    @property
    def attacks(self) -> list[str]:
        """Attacks that have a recovery, in the order made."""
        never = ("kept_answer", "kept_rouge", "lens", "probe", "patch_in", "patch_out", "min_k", "min_k_unseen")
        return [a for a in dict.fromkeys(self.tables["run"]["attack"]) if a not in never]

    @property
    def steps(self) -> list[int]:
        """Relearning steps that were measured."""
        return sorted(set(self.settings.steps))

    def knowledge(self, role: str, attack: str, last: int | None = None) -> tuple[list[str], NDArray[np.float64]]:
        """Fact ids and (facts, seeds) knowledge of one model under an attack, at its best step and rate."""
        rows = self.tables["run"]
        ids = list(dict.fromkeys(rows[rows["attack"] == attack]["id"]))
        return ids, attacked(self.tables[role], attack, ids, last)

    def full(self, attack: str, ids: list[str]) -> NDArray[np.float64]:
        """(facts,) what the model before knew of these facts, unattacked, in the measure that the attack is told in."""
        measure = "rouge" if attack.startswith(_ROUGE) else "answer"
        return attacked(self.tables["before"], measure, ids)[:, 0]

    def recovered(self, attack: str, last: int | None = None) -> Estimate:
        """ρ of an attack; for relearning at the best step up to `last`."""
        ids, ours = self.knowledge("run", attack, last)
        full, note = self.full(attack, ids), ""
        if attack == "adapter_off":
            theirs = attacked(self.tables["reference"], "answer", ids) if self.control else np.zeros_like(ours)
        elif self.control:
            theirs = self.knowledge("reference", attack, last)[1]
        else:
            measure = "rouge" if attack.startswith(_ROUGE) else "answer"
            theirs = attacked(self.tables["run"], measure, ids)
            note = "no control: beside the model's own unattacked knowledge"
        found = recovery(ours, theirs, full, seed=self.seed, resamples=self.settings.resamples)
        return dataclasses.replace(found, note=found.note or note)

    @cached_property
    def recoveries(self) -> dict[str, Estimate]:
        """Attack → ρ."""
        return {attack: self.recovered(attack) for attack in self.attacks}

    @property
    def control(self) -> bool:
        """Whether there is a control model."""
        return "reference" in self.tables

    def layers(self, role: str, kind: str) -> dict[int, float]:
        """Layer → mean over facts (and seeds) of the lens, the probe or the patching."""
        rows = self.tables[role]
        return dict(rows[rows["attack"] == kind].groupby("step")["knowledge"].mean())

    @cached_property
    def bands(self) -> dict[str, float]:
        """For lens and probe, layer by layer: the share of the way from the control to the model before.

        Layers where the model before is no better than the control by a tenth tell nothing and are left out.
        """
        out = {}
        for kind in ("lens", "probe") if self.control else ():
            ours, theirs, full = (self.layers(role, kind) for role in ("run", "reference", "before"))
            for layer in ours:
                gap = full.get(layer, 0.0) - theirs.get(layer, 0.0)
                if gap >= 0.1:
                    out[f"{kind} {layer}"] = (ours[layer] - theirs[layer]) / gap
        return out

    def utility(self, role: str) -> float | None:
        """Harmonic mean of answer probability and ROUGE-L recall on the rows to keep."""
        rows = self.tables[role]
        parts = [rows[rows["attack"] == name]["knowledge"].mean() for name in ("kept_answer", "kept_rouge")]
        if any(np.isnan(p) for p in parts):
            return None
        return float(2 * parts[0] * parts[1] / max(sum(parts), 1e-12))

    def membership(self, role: str) -> float | None:
        """AUC of the min-k attack: near 1, the facts look trained on; None without hold-out rows."""
        rows = self.tables[role]
        members, others = (rows[rows["attack"] == n]["knowledge"].to_numpy() for n in ("min_k", "min_k_unseen"))
        return float(auc(members, others)) if len(members) and len(others) else None

    @cached_property
    def over(self) -> dict[str, float]:
        """Signs of going beyond the control, which give the facts away as well: what is known, and privacy leakage."""
        out: dict[str, float] = {}
        if self.control:
            ours, theirs = (self.knowledge(role, "answer")[1].mean() for role in ("run", "reference"))
            out["knowledge_log10_ratio"] = float(np.log10(max(ours, 1e-300) / max(theirs, 1e-300)))
            mine, control = self.membership("run"), self.membership("reference")
            if mine is not None and control is not None:
                out["privleak"] = float(privleak(mine, control))
        return out

    @cached_property
    def verdict(self) -> Verdict:
        """What the rules say."""
        measure = "rouge" if self.guarded else "answer"
        ids, shown = self.knowledge("run", measure)
        now, then = self.utility("run"), self.utility("before")
        return judge_removal(
            Evidence(
                (float(shown.mean()), float(self.full(measure, ids).mean())),
                None if now is None or then is None else (now, then),
                {a: e for a, e in self.recoveries.items() if a not in ("answer", "rouge")},
                self.bands,
                self.control,
                self.intention,
                self.guarded,
            )
        )

    def table(self) -> pd.DataFrame:
        """One row an attack: what the models knew under it, and the recovery with its interval."""
        import pandas as pd

        rows = []
        for attack, found in self.recoveries.items():
            known = {
                role: float(np.nanmean(self.knowledge(role, attack)[1]))
                for role in self.tables
                if (self.tables[role]["attack"] == attack).any()
            }
            rows.append({"attack": attack, **known, "recovery": found.value, "low": found.low, "high": found.high})
        return pd.DataFrame(rows)

    @property
    def curves(self) -> pd.DataFrame:
        """Relearning curves: role, attack, lr, seed, step, mean knowledge."""
        import pandas as pd

        tables = [table.assign(role=role) for role, table in self.tables.items()]
        rows = pd.concat(tables, ignore_index=True)
        rows = rows[rows["attack"].isin(_CURVES)]
        keys = ["role", "attack", "lr", "seed", "step"]
        return pd.DataFrame(rows.groupby(keys, as_index=False)["knowledge"].mean())


@dataclass(frozen=True)
class UnlearningAudit:
    """The battery from Python.

    Attributes:
        full: the model before unlearning.
        control: one that never saw the facts; None allows no verdict of removal.
        data: the rows.
        settings: the budget.
        intention: what the method claims, "removal" or "suppression".
        seed: of the bootstrap.
    """

    full: LanguageModel
    control: LanguageModel | None
    data: RemovalData
    settings: RemovalSettings = field(default_factory=RemovalSettings)
    intention: Intention | None = None
    seed: int = 0

    def run(
        self, unlearned: LanguageModel, *, engine: Engine | None = None, progress: Callable[..., Any] | None = None
    ) -> Battery:
        """Audit a model.

        Args:
            unlearned: the model; its weights are the same afterwards (an adapter is merged into them).
            engine: what its users talk to, for instance a guard around it. What is shown, sampled and answered to other
                prompts then comes from the guard, everything else from the weights behind it.
            progress: called with whose model is measured, the check, how many are done and how many there are.

        Raises:
            UsageError: no learning rate is set.
        """
        if self.settings.learning_rate is None:
            raise UsageError("relearning needs a learning rate: set learning_rate to the one that unlearning used")

        def told(role: str) -> Progress | None:
            return None if progress is None else lambda check, done, total: progress(role, check, done, total)

        once = dataclasses.replace(self.settings, seeds=1, factors=(1.0,))
        tables = {}
        tables["before"], _ = removal_battery(self.full, self.data, once, checks=_FOR_FULL, progress=told("before"))
        if self.control is not None:
            tables["reference"], _ = removal_battery(
                self.control,
                self.data,
                self.settings,
                before=self.full,
                guarded=engine is not None,
                progress=told("reference"),
            )
        tables["run"], skipped = removal_battery(
            unlearned,
            self.data,
            self.settings,
            before=self.full,
            engine=engine,
            guarded=engine is not None,
            progress=told("run"),
        )
        return Battery(self.data, self.settings, tables, skipped, self.intention, engine is not None, self.seed)
