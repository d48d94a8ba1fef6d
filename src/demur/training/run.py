"""Training runs: from settings to a run folder, resumable at any point."""

from __future__ import annotations

from pathlib import Path

from datasets import Dataset

from demur.data.abstentions import ABSTENTIONS
from demur.data.readers import read_lines, read_rows
from demur.data.splits import require_disjoint
from demur.errors import UsageError
from demur.models.language_model import LanguageModel
from demur.runs import RunFolder
from demur.training.alternates import ALTERNATES, Maker, cycled_alternates, drawn_alternates, own_alternates
from demur.training.decoupling import decouple_weight, pair_decoupled
from demur.training.execution import OnEpoch, Task, execute
from demur.training.inputs import PREFERENCE_ROLES, encode_all, encode_preferences, read_answers
from demur.training.multiplier import make_multiplier
from demur.training.objective import Objective
from demur.training.plan import Plan, paired_plan
from demur.training.settings import ForgetSettings, TrainSettings

__all__ = ["forget", "train"]


def forget(settings: ForgetSettings, out: str | Path, on_epoch: OnEpoch | None = None) -> RunFolder:
    """Make a model forget some rows and keep others; everything lands in a run folder.

    A folder that the same settings made before is taken up where it stopped: a finished run is returned as it is, a
    killed one resumes from its last checkpoint and ends with the same weights as one that was never stopped.

    Args:
        settings: what to forget, from what, and how.
        out: the run folder.
        on_epoch: called with the model and the number of epochs done, before the first (0) and after each; must
            leave the model as it is.

    Returns:
        The run folder; its `model/` loads with transformers or peft.

    Raises:
        UsageError: the settings, the data or the model are not fit for use; nothing has been written then.
        DemurError: training failed; the run folder keeps its last good checkpoint.
    """
    objective = Objective.make(
        settings.objective,
        settings.objective_options,
        settings.retain_objective,
        settings.forget_weight,
        settings.retain_weight,
        decouple_weight(settings.decoupled, settings.decouple_weight),
    )
    if objective.main.facts["forget_only"] and settings.reference != "cached":
        raise UsageError(
            f"objective {settings.objective!r} is for where no reference model may be used: leave --reference out"
        )
    rows = {"forget": read_answers(settings.forget)}
    if settings.holdout is not None:
        read_answers(settings.holdout)
    if settings.retain is not None:
        rows["retain"] = read_answers(settings.retain)
        require_disjoint(rows["forget"], rows["retain"], allow_overlap=settings.allow_overlap)
    if settings.decoupled is not None:
        rows["decoupled"] = pair_decoupled(rows["forget"], read_answers(settings.decoupled), settings.decoupled)
    for role in objective.roles:
        if role not in rows and role != "alternate":
            raise UsageError(
                f"objective {settings.objective!r} needs {role} rows: pass --{role}"
                if role == "retain"
                else f"objective {settings.objective!r} works on {role} rows, not on a forget set: choose another"
            )

    if settings.alternates is not None and "alternate" not in objective.roles:
        raise UsageError(f"objective {settings.objective!r} gives no other answers: leave --alternates out")
    if settings.alternates is not None and objective.main.facts["generated"]:
        raise UsageError(
            f"objective {settings.objective!r} teaches each row's own answers: leave --alternates out and give the "
            "forget rows a column 'alternates' (demur data alternates), or have the model make them up"
        )
    out = Path(out)
    made: dict[str, Dataset] = {}
    multiplier = make_multiplier(settings, objective)

    def plan(lm: LanguageModel) -> Plan:
        # Retain rows that no loss uses are still measured, so they too must fit.
        encoded = encode_all(lm, rows, settings)
        tables = {role: encoded[role] for role in objective.roles if role not in ("alternate", "decoupled")}
        if "alternate" in objective.roles:
            tables.setdefault("forget", encoded["forget"])  # the rows that are answered otherwise
        others = {role: t for role, t in tables.items() if role != settings.anchor}
        if settings.anchor not in tables:
            raise UsageError(f"--anchor {settings.anchor} needs an objective that uses {settings.anchor} rows")
        maker: Maker | None = None
        if objective.main.facts["generated"]:
            own, new = own_alternates(lm, rows["forget"], settings.forget, out / ALTERNATES, settings.seed)
            if new:
                made[ALTERNATES] = own
            maker = cycled_alternates(lm, own, own["alternates"][:], settings.seed)
        elif "alternate" in objective.roles:
            answers = ABSTENTIONS if settings.alternates is None else read_lines(settings.alternates)
            maker = drawn_alternates(lm, rows["forget"], answers, settings.seed)
        anchored = {settings.anchor: tables[settings.anchor]}
        paired = {"decoupled": encoded["decoupled"]} if "decoupled" in objective.roles else {}
        if paired and "forget" not in tables:
            raise UsageError(f"objective {settings.objective!r} has no forget rows for decoupled rows to go with")
        return paired_plan(
            anchored, others, epochs=settings.epochs, seed=settings.seed, paired=paired, alternates=maker
        )

    return execute(Task("forget", settings, out, objective, rows, plan, on_epoch, multiplier, made))


def train(settings: TrainSettings, out: str | Path, on_epoch: OnEpoch | None = None) -> RunFolder:
    """Fine-tune a model on rows, for instance to make the gold reference that never saw the forget set.

    Args:
        settings: the model, the rows and the objective.
        out: the run folder.
        on_epoch: as for `forget`.

    Returns:
        The run folder.

    Raises:
        UsageError, DemurError: as for `forget`.
    """
    objective = Objective.make(settings.objective, settings.objective_options)
    data = read_rows(settings.data)
    if objective.roles != ("examples",) and not set(objective.roles) <= set(PREFERENCE_ROLES):
        raise UsageError(f"objective {settings.objective!r} trains on {', '.join(objective.roles)} rows: use forget")

    def plan(lm: LanguageModel) -> Plan:
        if objective.roles == ("examples",):
            tables = {"examples": encode_all(lm, {"data": data}, settings)["data"]}
        else:
            tables = encode_preferences(lm, data, settings.data, objective.roles, settings.seed)
        return paired_plan(tables, {}, epochs=settings.epochs, seed=settings.seed)

    return execute(Task("train", settings, Path(out), objective, {"data": data}, plan, on_epoch))
