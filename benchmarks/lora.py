"""One unlearning epoch with adapters of rank 8 and with all weights: `python -m benchmarks.lora`.

Both sides train the same 128k-vocabulary model through demur's trainer, on the same rows in the same batches, with the
inverted hinge and an NLL retain term. Peak memory is all that training needs beyond the weights: activations,
gradients and optimizer state. What FILA adds before the first step is measured beside it and is in no ratio.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from typing import Any

import torch

from benchmarks import measure, world

ROWS, BATCH, RANK = 24, 8, 8
RATE = {"lora": 1e-3, "full": 1e-5}


def add_adapters(lm: Any) -> None:
    """Ordinary adapters in every linear module."""
    import peft

    torch.manual_seed(0)
    config = peft.LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM")
    lm.model = peft.get_peft_model(lm.model, config)


def fila_seconds(lm: Any, tables: dict[str, list[Any]]) -> float:
    """Seconds of the importance of all adapted weights and of dividing them."""
    from demur.data import collate
    from demur.training import fila_init, relative_fisher

    started = time.perf_counter()
    lm.model.eval()
    batches = [
        [collate(tables[role][i : i + BATCH], lm.pad_id) for i in range(0, ROWS, BATCH)]
        for role in ("forget", "retain")
    ]
    fila_init(lm.model, relative_fisher(lm.model, *batches))
    return time.perf_counter() - started


def side(name: str) -> dict[str, Any]:
    """Two epochs; the second is timed."""
    import transformers

    from demur.training import Objective, ObjectiveTrainer, paired_plan

    lm, tables = world.prepared(ROWS)
    if name == "lora":
        add_adapters(lm)
    plan = paired_plan({"forget": tables["forget"]}, {"retain": tables["retain"]}, epochs=2, seed=0)

    class Meter(transformers.TrainerCallback):
        losses: list[float] = []  # noqa: RUF012

        def on_epoch_begin(self, *args: Any, **kwargs: Any) -> None:
            self.started = time.perf_counter()

        def on_epoch_end(self, *args: Any, **kwargs: Any) -> None:
            self.seconds = time.perf_counter() - self.started

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            if logs and "loss" in logs:
                self.losses.append(logs["loss"])

    meter = Meter()
    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=BATCH,
            num_train_epochs=2,
            learning_rate=RATE[name],
            lr_scheduler_type="constant",
            save_strategy="no",
            logging_steps=1,
            report_to=[],
            disable_tqdm=True,
            remove_unused_columns=False,
            use_cpu=True,
        )
        trainer = ObjectiveTrainer(lm, Objective.make("ihl"), plan, {}, arguments, [meter])
        trainer.remove_callback(transformers.PrinterCallback)
        _, _, peak = measure.measured(trainer.train)
    trained = sum(p.numel() for p in lm.model.parameters() if p.requires_grad)
    out = {"epoch_seconds": meter.seconds, "peak_bytes": peak, "trained": trained, "first_loss": meter.losses[0]}
    if name == "lora":
        fresh, tables = world.prepared(ROWS)
        add_adapters(fresh)
        out["fila_seconds"] = fila_seconds(fresh, tables)
    return out


def compare(rounds: int = 3) -> dict[str, Any]:
    """Both sides in turn, the ratios, and that both started from the same loss."""
    records = measure.in_turn(__spec__.name, ("lora", "full"), rounds, [])
    for ours, theirs in zip(records["lora"], records["full"], strict=True):
        if abs(ours["first_loss"] - theirs["first_loss"]) > 1e-3:
            raise SystemExit(f"the two sides did not do the same work: losses {ours} and {theirs}")
    result = {
        "benchmark": f"IHL + NLL, rank {RANK} against all weights, batch {BATCH}, vocabulary {world.VOCABULARY}",
        "ratio": {f: measure.ratio(records, "lora", "full", f) for f in ("epoch_seconds", "peak_bytes")},
        "runs": records,
    }
    measure.save("lora", result)
    return result


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(side(sys.argv[1])))
    else:
        print(json.dumps(compare()["ratio"], indent=1))
