"""One unlearning epoch, NPO with an NLL retain term: `python -m benchmarks.unlearning_step`.

Both sides train the same 128k-vocabulary model on the same rows in the same batches with the same optimizer. Peak
memory is what an epoch needs beyond the weights (the peer's reference copy counts as weights) and the gradients;
optimizer state is made beforehand.
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

from benchmarks import measure, peer, world

ROWS, BATCH, RATE = 32, 8, 1e-5


def schedule() -> tuple[Any, Any]:
    """(epochs, items) forget and retain rows: one warm-up epoch of one batch would skew the plan, so two whole ones."""
    generator = np.random.default_rng(0)
    forget = np.stack([generator.permutation(ROWS) for _ in range(2)])
    return forget, generator.integers(ROWS, size=forget.shape)


def gradient_bytes(model: torch.nn.Module) -> int:
    """Bytes of one gradient for every weight."""
    return sum(p.numel() * p.element_size() for p in model.parameters())


def plain() -> dict[str, Any]:
    """The peer's side."""
    from demur.data.batch import collate

    lm, tables = world.prepared(ROWS)
    trainer = peer.PlainNPO(lm.model, RATE)
    forget, retain = schedule()
    losses: list[float] = []

    def epoch(number: int) -> None:
        for start in range(0, ROWS, BATCH):
            part = slice(start, start + BATCH)
            f = collate([tables["forget"][i] for i in forget[number, part]], lm.pad_id)
            r = collate([tables["retain"][i] for i in retain[number, part]], lm.pad_id)
            losses.append(trainer.step(f, r))

    epoch(0)
    _, seconds, peak = measure.measured(lambda: epoch(1))
    return {
        "step_seconds": seconds / (ROWS / BATCH),
        "peak_bytes": peak - gradient_bytes(lm.model),
        "last_loss": losses[-1],
    }


def demur() -> dict[str, Any]:
    """demur's side, through its trainer."""
    import transformers

    from demur.training import Objective, ObjectiveTrainer, Plan, score_reference

    lm, tables = world.prepared(ROWS)
    forget, retain = schedule()
    plan = Plan(tables, {"forget": forget, "retain": retain})
    started = time.perf_counter()
    references = {"forget": score_reference(lm, tables["forget"], np.arange(ROWS))}
    reference_seconds = time.perf_counter() - started

    class Meter(transformers.TrainerCallback):
        epochs = 0
        losses: list[float] = []  # noqa: RUF012

        def on_epoch_begin(self, *args: Any, **kwargs: Any) -> None:
            self.before, self.started = measure.resident(), time.perf_counter()
            Path("/proc/self/clear_refs").write_text("5")

        def on_epoch_end(self, *args: Any, **kwargs: Any) -> None:
            self.seconds = time.perf_counter() - self.started
            self.peak = measure.resident("VmHWM") - self.before

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            if logs and "loss" in logs:
                self.losses.append(logs["loss"])

    meter = Meter()
    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=BATCH,
            num_train_epochs=2,
            learning_rate=RATE,
            lr_scheduler_type="constant",
            weight_decay=0.01,
            max_grad_norm=1.0,
            save_strategy="no",
            logging_steps=1,
            report_to=[],
            disable_tqdm=True,
            remove_unused_columns=False,
            use_cpu=True,
        )
        trainer = ObjectiveTrainer(lm, Objective.make("npo", retain="nll"), plan, references, arguments, [meter])
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
    return {
        "step_seconds": meter.seconds / (ROWS / BATCH),
        "peak_bytes": meter.peak - gradient_bytes(lm.model),
        "last_loss": meter.losses[-1],
        "reference_seconds": reference_seconds,
    }


def compare(rounds: int = 3) -> dict[str, Any]:
    """Both sides in turn, the ratios, and the losses' agreement."""
    records = measure.in_turn(__spec__.name, ("demur", "plain"), rounds, [])
    for ours, theirs in zip(records["demur"], records["plain"], strict=True):
        if abs(ours["last_loss"] - theirs["last_loss"]) > 1e-3:
            raise SystemExit(f"the two sides did not do the same work: losses {ours} and {theirs}")
    result = {
        "benchmark": f"NPO + NLL, batch {BATCH}, vocabulary {world.VOCABULARY}",
        "target": {"step_seconds": 0.5, "peak_bytes": 0.33},
        "ratio": {f: measure.ratio(records, "demur", "plain", f) for f in ("step_seconds", "peak_bytes")},
        "runs": records,
    }
    measure.save("unlearning_step", result)
    return result


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps({"demur": demur, "plain": plain}[sys.argv[1]]()))
    else:
        print(json.dumps(compare()["ratio"], indent=1))
