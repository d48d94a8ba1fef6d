"""Selective synaptic dampening against retraining, and its importances against loops: `python -m benchmarks.ssd`.

A residual network of 20,000 weights that knows 1,200 digits forgets one of them. The importances of all data were kept,
as the paper has it, and are read from their file within the measured time. The importances of all 1,200 rows are
measured against a loop over single rows (the same numbers) and, with batches of 64, against a loop over batches, which
is how the paper's authors compute theirs. One thread on every side.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks import measure

DIGIT, ALPHA, BATCH = 3, 4.0, 64
PAIRS = {"retraining": ("dampened", "retrained"), "samples": ("samples", "loop"), "batches": ("batches", "batch_loop")}


def prepared() -> tuple[Any, Any, Any]:
    """The network and its training rows, parted; the first rows go through it once."""
    from demur.data.labelled import split_off
    from demur.data.labelled_sources import read_labelled
    from demur.lab.digits import trained_resnet

    torch.set_num_threads(1)
    data = read_labelled("digits:train")
    model = trained_resnet(data, seed=0)
    model.predict(data)
    return model, data, split_off(data, f"class:{DIGIT}")


def _edited(name: str, **options: Any) -> dict[str, Any]:
    from demur.editing import edit

    model, _, split = prepared()
    edited, seconds, peak = measure.measured(lambda: edit(name, model, split.forget, split.retain, **options))
    right = {k: (edited.predict(d).argmax(1) == d.labels).float().mean() for k, d in vars(split).items() if k != "kind"}
    return {"seconds": seconds, "peak_bytes": peak, **{k: float(v) for k, v in right.items()}}


def dampened() -> dict[str, Any]:
    """SSD with kept importances."""
    from demur.editing import Importances

    model, data, _ = prepared()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "importances.safetensors"
        Importances.measured(model, data).save(file)
        return _edited("ssd", alpha=ALPHA, importances=file)


def retrained() -> dict[str, Any]:
    """Training from the beginning on the rows to keep: 12 epochs, batches of 64."""
    return _edited("retrain")


def _importances(work: Callable[[Any, Any], dict[str, torch.Tensor]]) -> dict[str, Any]:
    model, data, _ = prepared()
    work(model, data.subset(range(4 * BATCH)))
    values, seconds, peak = measure.measured(lambda: work(model, data))
    flat = torch.cat([value.flatten() for value in values.values()]).double()
    return {"seconds": seconds, "peak_bytes": peak, "sum": float(flat.sum()), "norm": float(flat.norm())}


def samples() -> dict[str, Any]:
    """demur's importances of single rows."""
    from demur.editing import fisher_diagonal

    return _importances(fisher_diagonal)


def batches() -> dict[str, Any]:
    """demur's importances of batches."""
    from demur.editing import fisher_diagonal

    return _importances(lambda model, data: fisher_diagonal(model, data, fisher="batch", batch_size=BATCH))


def _looped(size: int) -> dict[str, Any]:
    def work(model: Any, data: Any) -> dict[str, torch.Tensor]:
        total = {name: torch.zeros_like(p) for name, p in model.module.named_parameters()}
        starts = range(0, len(data), size)
        for start in starts:
            inputs, labels = data.batch(slice(start, start + size))
            model.module.zero_grad()
            F.cross_entropy(model.logits(inputs), labels).backward()
            for name, p in model.module.named_parameters():
                total[name] += p.grad.pow(2)
        return {name: value / len(starts) for name, value in total.items()}

    return _importances(work)


def loop() -> dict[str, Any]:
    """A backward pass for each row."""
    return _looped(1)


def batch_loop() -> dict[str, Any]:
    """A backward pass for each batch."""
    return _looped(BATCH)


def compare(rounds: int = 3) -> dict[str, Any]:
    """All pairs, each in turn."""
    prepared()  # trains the network where the cache does not have it
    records = {name: measure.in_turn(__spec__.name, pair, rounds, []) for name, pair in PAIRS.items()}
    for name in ("samples", "batches"):
        ours, theirs = (records[name][side][0] for side in PAIRS[name])
        if any(abs(ours[field] / theirs[field] - 1) > 1e-3 for field in ("sum", "norm")):
            raise SystemExit(f"the two sides did not do the same work: {ours}, {theirs}")
    if any(record["forget"] > 0.05 for side in records["retraining"].values() for record in side):
        raise SystemExit(f"a side did not forget: {records['retraining']}")
    result = {
        "benchmark": "selective synaptic dampening of a digit; importances of 1,200 rows",
        "target": {"seconds, to retraining": 0.05},
        "ratio": {f"seconds, {name}": measure.ratio(records[name], *pair, "seconds") for name, pair in PAIRS.items()},
        "runs": records,
    }
    measure.save("ssd", result)
    return result


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(globals()[sys.argv[1]]()))
    else:
        print(json.dumps(compare()["ratio"], indent=1))
