"""The multiplier of a constraint on the retain loss: dual ascent beside the optimizer's descent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate.utils import reduce
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from demur.data.batch import collate
from demur.errors import UsageError
from demur.files import write_json
from demur.models.language_model import LanguageModel
from demur.models.scored import score
from demur.objectives import dual_step
from demur.training.objective import Objective
from demur.training.plan import Plan
from demur.training.settings import ForgetSettings

__all__ = ["Multiplier", "make_multiplier", "require_limit"]

_FILE = "multiplier.json"


class Multiplier(TrainerCallback):
    """λ of L_forget + λ · (L_retain - limit), moved by λ ← max(0, λ + rate · (L_retain - limit)).

    It is part of a checkpoint, so that a resumed run goes on with the λ that it was stopped at.

    Args:
        start: λ at the beginning.
        limit: what the retain loss is to stay below.
        rate: of a move.
        update: "step" moves it after every optimizer step by that step's loss, "epoch" after every epoch by the mean
            of its steps' losses.
        warmup: epochs before the first move.
    """

    def __init__(self, start: float, limit: float, rate: float, update: Literal["step", "epoch"], warmup: int) -> None:
        self.value = start
        self.limit, self.rate, self.update, self.warmup = limit, rate, update, warmup
        self._passes: list[float] = []
        self._steps: list[float] = []

    def see(self, loss: float) -> None:
        """Take note of the retain loss of one forward pass, already weighted by its share of the step."""
        self._passes.append(loss)

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Where a run goes on, take up what its checkpoint holds."""
        if state.global_step:
            stored = json.loads((_checkpoint(args, state) / _FILE).read_text())
            self.value, self._steps = stored["value"], stored["steps"]
            if state.epoch == round(state.epoch or 0):  # it may have been saved just before the epoch's end was noted
                self.on_epoch_end(args, state, control)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """After the optimizer's step."""
        own = torch.tensor(sum(self._passes) / len(self._passes), dtype=torch.float64, device=args.device)
        loss = float(reduce(own, "mean"))
        self._passes = []
        if self.update == "epoch":
            self._steps.append(loss)
        elif (state.epoch or 0) > self.warmup:
            self.value = dual_step(self.value, loss - self.limit, self.rate)

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """After the last step of an epoch."""
        if self._steps and round(state.epoch or 0) >= self.warmup:
            mean = sum(self._steps) / len(self._steps)
            self.value = dual_step(self.value, mean - self.limit, self.rate)
        self._steps = []

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Into the checkpoint that has just been written."""
        if state.is_world_process_zero:
            write_json(_checkpoint(args, state) / _FILE, {"value": self.value, "steps": self._steps})


def make_multiplier(settings: ForgetSettings, objective: Objective) -> Multiplier | None:
    """What moves the retain weight, where the retain loss has a limit.

    Raises:
        UsageError: there is no retain loss, or the run ends before the first move.
    """
    if settings.retain_limit is None:
        return None
    if "retain" not in objective.roles or objective.retain is None:
        raise UsageError(f"--retain-limit needs a retain loss, and {settings.objective!r} is run without one")
    if settings.dual_warmup >= settings.epochs:
        raise UsageError(
            f"the retain weight moves only after {settings.dual_warmup} epochs, and the run has {settings.epochs}: "
            "pass more --epochs or a smaller --dual-warmup"
        )
    return Multiplier(
        objective.retain_weight, settings.retain_limit, settings.dual_rate, settings.dual_update, settings.dual_warmup
    )


@torch.no_grad()
def require_limit(lm: LanguageModel, objective: Objective, plan: Plan) -> None:
    """Refuse to run without the limit that the objective is made for, and say what a good one would be.

    Raises:
        UsageError: always.
    """
    if "retain" not in objective.roles:
        raise UsageError(f"objective {objective.main.name!r} holds a retain loss below a limit: run it with one")
    table = plan.tables["retain"][:64]
    parts = [score(lm.model, collate(table[i : i + 8], lm.pad_id)) for i in range(0, len(table), 8)]
    loss = -float(sum(p.logps.sum() for p in parts) / sum(p.lengths.sum() for p in parts))
    raise UsageError(
        f"objective {objective.main.name!r} holds the retain loss below a limit: pass --retain-limit, a bit above the "
        f"{loss:.3g} that it is before"
    )


def _checkpoint(args: TrainingArguments, state: TrainerState) -> Path:
    return Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
