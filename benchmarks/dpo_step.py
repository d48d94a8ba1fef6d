"""One DPO epoch against TRL's DPOTrainer: `python -m benchmarks.dpo_step`.

Both sides train the same 128k-vocabulary model on the same tokens in the same batches with transformers' own optimizer
settings, in single precision and without recomputing activations. TRL is measured twice: as it is by default, with a
copy of the model as the reference in every step, and with reference scores computed beforehand, as demur has them.

`peak_bytes` is what an epoch needs beyond what was there before it (weights, the reference's copy, optimizer state) and
beyond the gradients; `whole_bytes` is all that came after the imports, the reference's copy included.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from benchmarks import measure, world
from benchmarks.unlearning_step import gradient_bytes

ROWS, BATCH, RATE, BETA = 32, 8, 1e-5, 0.1
SIDES = ("demur", "trl", "trl_precomputed")
AGREE = 1e-5


class Meter(transformers.TrainerCallback):
    """Seconds and memory of the last epoch; the first makes the optimizer's state."""

    def on_epoch_begin(self, *args: Any, **kwargs: Any) -> None:
        self.before, self.started = measure.resident(), time.perf_counter()
        Path("/proc/self/clear_refs").write_text("5")

    def on_epoch_end(self, *args: Any, **kwargs: Any) -> None:
        self.seconds, self.peak = time.perf_counter() - self.started, measure.resident("VmHWM")


def prepared() -> tuple[Any, dict[str, list[Any]]]:
    """The model, and encoded pairs: each question's answer against its first perturbed one."""
    from demur.data import question_answer
    from demur.lab import train_tokenizer
    from demur.models import encode

    torch.set_num_threads(2)
    lm = world.model(train_tokenizer(world.texts(), 4096))
    rows = world.rows("forget").select(range(ROWS))
    questions, answers = question_answer(rows)
    wrong = [others[0] for others in rows["perturbed_answer"]]
    return lm, {"chosen": encode(lm, questions, answers), "rejected": encode(lm, questions, wrong)}


def settings(folder: str) -> dict[str, Any]:
    """What both trainers are told."""
    return {
        "output_dir": folder,
        "per_device_train_batch_size": BATCH,
        "num_train_epochs": 2,
        "learning_rate": RATE,
        "lr_scheduler_type": "constant",
        "weight_decay": 0.01,
        "max_grad_norm": 1.0,
        "save_strategy": "no",
        "logging_steps": 1,
        "report_to": [],
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "use_cpu": True,
    }


def record(lm: Any, meter: Meter, losses: list[float], start: int, **more: float) -> dict[str, Any]:
    """What a side prints."""
    return {
        "step_seconds": meter.seconds / (ROWS / BATCH),
        "peak_bytes": meter.peak - meter.before - gradient_bytes(lm.model),
        "whole_bytes": meter.peak - start,
        "losses": losses,
        **more,
    }


def demur() -> dict[str, Any]:
    """demur's side, through its trainer."""
    from demur.training import Objective, ObjectiveTrainer, Plan, score_reference

    class Watched(ObjectiveTrainer):
        losses: list[float] = []  # noqa: RUF012

        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            loss = super().compute_loss(*args, **kwargs)
            self.losses.append(float(loss.detach()))
            return loss

    start = measure.resident()
    lm, tables = prepared()
    plan = Plan(tables, dict.fromkeys(tables, np.tile(np.arange(ROWS), (2, 1))))
    started = time.perf_counter()
    references = {role: score_reference(lm, table, np.arange(ROWS)) for role, table in tables.items()}
    seconds, meter = time.perf_counter() - started, Meter()
    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(**settings(folder))
        objective = Objective.make("dpo", {"beta": BETA})
        trainer = Watched(lm, objective, plan, references, arguments, [meter])
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
    return record(lm, meter, trainer.losses, start, reference_seconds=seconds)


def trl(precomputed: bool = False) -> dict[str, Any]:
    """TRL's side, given the same tokens."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    class Watched(DPOTrainer):
        losses: list[float] = []  # noqa: RUF012

        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            loss = super().compute_loss(*args, **kwargs)
            self.losses.append(float(loss.detach()))
            return loss

        def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
            return dataset  # tokens already

    start = measure.resident()
    lm, tables = prepared()
    pairs = zip(tables["chosen"], tables["rejected"], strict=True)
    rows = [
        {"prompt_ids": won.input_ids[: won.prompt_length], "chosen_ids": won.label_ids, "rejected_ids": lost.label_ids}
        for won, lost in pairs
        if won.input_ids[: won.prompt_length] == lost.input_ids[: lost.prompt_length]
    ]
    if len(rows) < ROWS:
        raise SystemExit("the answers of a pair do not begin at the same token: the sides would differ")
    meter = Meter()
    with tempfile.TemporaryDirectory() as folder:
        arguments = DPOConfig(
            **settings(folder),
            beta=BETA,
            bf16=False,
            gradient_checkpointing=False,
            max_length=None,
            train_sampling_strategy="sequential",
            precompute_ref_log_probs=precomputed,
        )
        trainer = Watched(
            model=lm.model,
            args=arguments,
            train_dataset=Dataset.from_list(rows),
            processing_class=lm.tokenizer,
            callbacks=[meter],
            ref_model=None if precomputed else world.model(lm.tokenizer).model,
        )
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
    return record(lm, meter, trainer.losses, start)


def compare(rounds: int = 3) -> dict[str, Any]:
    """demur and either TRL in turn, the ratios, and the agreement of all losses."""
    ratios, runs = {}, {}
    for peer in SIDES[1:]:
        records = measure.in_turn(__spec__.name, ("demur", peer), rounds, [])
        for ours, theirs in zip(records["demur"], records[peer], strict=True):
            apart = max(abs(a - b) for a, b in zip(ours["losses"], theirs["losses"], strict=True))
            if apart > AGREE:
                raise SystemExit(f"the two sides did not do the same work: losses {apart:.1e} apart: {ours}, {theirs}")
        fields = ("step_seconds", "peak_bytes", "whole_bytes")
        ratios[peer] = {f: measure.ratio(records, "demur", peer, f) for f in fields}
        runs[peer] = records
    result = {
        "benchmark": f"DPO, batch {BATCH} pairs, vocabulary {world.VOCABULARY}",
        "target": {"step_seconds": 0.7, "peak_bytes": 0.5},
        "ratio": ratios,
        "runs": runs,
    }
    measure.save("dpo_step", result)
    return result


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sides = {"demur": demur, "trl": trl, "trl_precomputed": lambda: trl(precomputed=True)}
        print(json.dumps(sides[sys.argv[1]]()))
    else:
        print(json.dumps(compare()["ratio"], indent=1))
