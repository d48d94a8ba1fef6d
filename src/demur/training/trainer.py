"""One trainer for every objective: transformers.Trainer with joint forward passes and stored references."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from demur.data.batch import Batch, collate
from demur.errors import DemurError
from demur.models.language_model import LanguageModel
from demur.models.scored import joint_score
from demur.training.multiplier import Multiplier
from demur.training.objective import Objective
from demur.training.plan import EpochSampler, Plan, PlannedRows
from demur.training.references import ReferenceScores
from demur.training.target_parts import target_parts

__all__ = ["EpochCallback", "ObjectiveTrainer", "last_checkpoint", "last_good"]

_COMPLETE = "complete"


class ObjectiveTrainer(Trainer):
    """Trains a language model on an objective.

    Args:
        lm: the model, changed in place.
        objective: what to minimise.
        plan: which rows meet in which step.
        references: the reference's scores by role; None takes them from the weights with the adapter off.
        args: transformers' own settings.
        callbacks: transformers' own.
        multiplier: the retain loss's weight, where a constraint moves it.
    """

    def __init__(
        self,
        lm: LanguageModel,
        objective: Objective,
        plan: Plan,
        references: Mapping[str, ReferenceScores] | None,
        args: TrainingArguments,
        callbacks: list[TrainerCallback] | None = None,
        multiplier: Multiplier | None = None,
    ) -> None:
        self.lm, self.objective, self.plan, self.references = lm, objective, plan, references
        self.multiplier = multiplier
        self._parts: dict[str, float] = {}
        self._target_parts = target_parts(objective, plan)
        super().__init__(
            model=lm.model,
            args=args,
            train_dataset=PlannedRows(plan),
            data_collator=self._collate,
            processing_class=lm.tokenizer,
            callbacks=[*(callbacks or []), *([multiplier] if multiplier else []), _MarkComplete()],
        )
        self.loss_is_scaled_for_ga = False

    def _collate(self, items: list[dict[str, int]]) -> dict[str, Any]:
        """Batches and stored references by role, with the weight of this forward pass in its optimizer step."""
        batches, stored = {}, {}
        for role in self.objective.roles:
            rows = [item[role] for item in items]
            batches[role] = collate([self.plan.tables[role][r] for r in rows], self.lm.pad_id)
            if self.references is not None and role in self.references:
                stored[role] = self.references[role].batch(rows, batches[role])
        out = {"batches": batches, "references": stored, "weight": 1.0}
        return out | ({"targeted": self._target_parts.rows(items)} if self._target_parts else {})

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Items in the plan's order; sharding over processes is accelerate's."""
        loader = DataLoader(
            self.train_dataset,
            batch_size=self.args.per_device_train_batch_size,
            sampler=EpochSampler(self.plan),
            collate_fn=self._collate,
        )
        return self.accelerator.prepare(loader)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], torch.Tensor | int | None]:
        """The forward passes of one optimizer step, weighted so that their sum is the loss of the whole step.

        Means over sequences are weighted by the passes' sizes; means over tokens divide by the step's tokens.
        """
        samples, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if not samples:
            return samples, items
        roles = list(samples[0]["batches"])
        counts = [[len(s["batches"][roles[0]]), *(s["batches"][r].label_tokens for r in roles)] for s in samples]
        totals = torch.tensor(counts, dtype=torch.float64).mean(0).to(torch.float32).to(device)
        means = self.accelerator.reduce(totals, "mean").tolist()
        for sample, (size, *_) in zip(samples, counts, strict=True):
            sample["weight"] = size / means[0]
            for role, tokens in zip(roles, means[1:], strict=True):
                batch: Batch = sample["batches"][role]
                sample["batches"][role] = replace(batch, token_total=tokens * sample["weight"])
        return samples, items

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """One joint forward pass over all roles, then the objective.

        Raises:
            DemurError: the loss is not a finite number; the message names the rows of the batch.
        """
        batches = inputs["batches"]
        references = inputs["references"]
        if self.references is None and self.objective.reference_roles:
            references = self._adapter_off_references(model, batches)
        objective = self.objective
        scored = joint_score(
            model, batches, references, self.lm.pad_id, layers=objective.layers, logits=objective.logits
        )
        loss, parts = objective(scored, self.multiplier.value if self.multiplier else None)
        value = float(loss.detach())
        if not math.isfinite(value):
            rows = "; ".join(f"{role} rows {', '.join(b.ids)}" for role, b in batches.items())
            step = self.state.global_step
            raise DemurError(
                f"the loss became {value} in step {step + 1} (epoch {self.state.epoch or 0:.2f}): {rows}; "
                f"{last_good(Path(self.args.output_dir), step)}"
            )
        self._parts = {name: float(part) for name, part in parts.items()}
        for role in {"chosen", "rejected"} & scored.keys():
            self._parts[f"{role}_logps"] = float(scored[role].logps.detach().mean())
        if self._target_parts:
            self._target_parts.see(scored["examples"], inputs["targeted"], inputs["weight"])
        if self.multiplier is not None and objective.retain is not None:
            self.multiplier.see(inputs["weight"] * self._parts[f"retain_{objective.retain.name}"])
            self._parts["multiplier"] = self.multiplier.value
        loss = loss * inputs["weight"]
        return (loss, scored) if return_outputs else loss

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Read a checkpoint's weights; those of vision-language models go under other names on disk than in memory."""
        target = self.model if model is None else model
        if self.lm.images is None or not isinstance(target, PreTrainedModel):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            saved = type(target).from_pretrained(resume_from_checkpoint, dtype=target.dtype)
            target.load_state_dict(saved.state_dict())

    @torch.no_grad()
    def _adapter_off_references(self, model: Any, batches: Mapping[str, Batch]) -> dict[str, Any]:
        inner = model.module if hasattr(model, "module") else model
        was_training = inner.training
        inner.eval()
        with inner.disable_adapter():
            wanted = {role: batches[role] for role in self.objective.reference_roles}
            # Projected when asked for: the head has no adapter and no gradient, so that may happen outside too.
            scored = joint_score(inner, wanted, {}, self.lm.pad_id, layers=self.objective.layers)
        inner.train(was_training)
        return scored

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add the parts of the objective to what is logged."""
        if "loss" in logs:
            logs = {**logs, **self._parts, **(self._target_parts.take() if self._target_parts else {})}
        super().log(logs, *args, **kwargs)


class _MarkComplete(TrainerCallback):
    """A checkpoint counts only once all of it is on disk."""

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.is_world_process_zero:
            (Path(args.output_dir) / f"checkpoint-{state.global_step}" / _COMPLETE).touch()


def last_checkpoint(folder: Path, before: int | None = None) -> Path | None:
    """The newest whole checkpoint in a folder; what a killed run left half-written is removed.

    Args:
        folder: holds the checkpoints.
        before: only those of earlier steps than this.
    """
    whole = {}
    for checkpoint in folder.glob("checkpoint-*") if folder.is_dir() else ():
        if (checkpoint / _COMPLETE).exists():
            whole[int(checkpoint.name.split("-")[1])] = checkpoint
        else:
            shutil.rmtree(checkpoint, ignore_errors=True)
    return max(((s, c) for s, c in whole.items() if before is None or s < before), default=(0, None))[1]


def last_good(folder: Path, step: int) -> str:
    """What there is to say once the weights after `step` are found to be broken."""
    found = last_checkpoint(folder, before=step)
    kept = f"the last good checkpoint is {found}" if found else "there is no good checkpoint yet"
    return f"{kept}: lower the learning rate or the loss's weight, and choose another --out"


class EpochCallback(TrainerCallback):
    """Calls a function before the first epoch and after every one, without touching the run's random state.

    A run that goes on from the end of an epoch calls it for that epoch again.

    Args:
        function: takes the number of epochs done.
    """

    def __init__(self, function: Callable[[int], None]) -> None:
        self.function = function

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        epoch = state.epoch or 0
        if epoch == round(epoch):  # also where a run goes on: it may have been killed before it came to this
            self._call(round(epoch))

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._call(round(state.epoch or 0))

    def _call(self, epoch: int) -> None:
        with torch.random.fork_rng():
            self.function(epoch)
