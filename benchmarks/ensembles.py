"""Small classifiers trained together against the same one by one: `python -m benchmarks.ensembles`.

Both sides train the same networks, from the same initial weights, on the same batches in the same order, by the same
code for the optimizer; after hundreds of steps of rounding in another order their logits must agree to 2e-3.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks import measure

SIDES = ("together", "one_by_one")
MEMBERS = {"perceptron": 200, "residual": 20}
EPOCHS, ROWS, ROUNDS = 3, 600, 3
AGREE = 2e-3


def prepared(kind: str) -> tuple[Any, Any]:
    """The architecture and the digits."""
    from demur.data.labelled_sources import read_labelled
    from demur.lab.digits import new_resnet
    from demur.models.classifier import Classifier

    torch.set_num_threads(1)
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10))
    model = new_resnet() if kind == "residual" else Classifier(layers, head="3", name="perceptron")
    return model, read_labelled(f"digits:train[0:{ROWS}]")


def side(name: str, kind: str, folder: Path) -> dict[str, Any]:
    """Train all members and keep their logits."""
    from demur.editing.ensembles import Ensemble, train_ensemble
    from demur.editing.finetune import fresh
    from demur.models import train_classifier

    model, data = prepared(kind)

    def together() -> Ensemble:
        return train_ensemble(model, data, MEMBERS[kind], epochs=EPOCHS)

    def one_by_one() -> Ensemble:
        seeds = range(MEMBERS[kind])
        return Ensemble.of([train_classifier(fresh(model, s), data, epochs=EPOCHS, seed=s) for s in seeds])

    train_classifier(fresh(model, 0), data, epochs=1)  # whatever is only done once
    made, seconds, peak = measure.measured(together if name == "together" else one_by_one)
    np.save(folder / f"{kind}-{name}.npy", made.logits(data).numpy())
    return {"seconds": seconds, "peak_bytes": peak, "members": MEMBERS[kind]}


def main() -> None:
    """Both architectures, both sides in turn."""
    result: dict[str, Any] = {"epochs": EPOCHS, "rows": ROWS, "target": 3}
    with tempfile.TemporaryDirectory() as folder:
        for kind in MEMBERS:
            print(kind, flush=True)
            records = measure.in_turn("benchmarks.ensembles", SIDES, ROUNDS, [kind, folder])
            ends = [np.load(Path(folder) / f"{kind}-{name}.npy") for name in SIDES]
            apart = float(np.abs(ends[0] - ends[1]).max())
            if apart > AGREE:
                raise SystemExit(f"the two sides did not train the same {kind} networks: logits differ by {apart:.2g}")
            faster = measure.ratio(records, "one_by_one", "together", "seconds")
            result[kind] = {"faster": faster, "logits_apart": apart, "records": records}
            print(f"{kind}: {faster['median']:.1f} times as fast, logits within {apart:.1g}", flush=True)
    measure.save("ensembles", result)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(side(sys.argv[1], sys.argv[2], Path(sys.argv[3]))))
    else:
        main()
