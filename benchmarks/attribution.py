"""Attribution of each row to each row, streamed to a file: `python -m benchmarks.attribution`.

TRAK on MNIST's 10,000 pictures: gradients of a perceptron's margins, projected to 256 dimensions, and the product of
all pairs, written block by block. The pairs grow with the square of the rows; the peak memory must not.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks import measure

SIZES = (2_500, 5_000, 10_000)
DIMENSION = 256


def one(rows: int) -> dict[str, Any]:
    """Seconds and peak memory of gradients and file together; some pairs are checked."""
    from demur.data.labelled_sources import read_labelled
    from demur.editing.attribution import Attribution, Factors
    from demur.editing.trak import trak
    from demur.models.classifier import Classifier

    torch.set_num_threads(1)
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Flatten(), nn.Linear(784, 16), nn.ReLU(), nn.Linear(16, 10))
    model = Classifier(layers, head="3", name="perceptron")
    data = read_labelled("mnist:train").joined(read_labelled("mnist:test")).subset(range(rows))
    trak([model], data.subset(range(512)), output="margin", dimension=DIMENSION)  # whatever is only done once
    took = {}

    def work(file: Path) -> Factors:
        started = time.perf_counter()
        factors = trak([model], data, output="margin", dimension=DIMENSION)
        took["gradient_seconds"] = time.perf_counter() - started
        factors.save(file)
        return factors

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "beta.npy"
        factors, seconds, peak = measure.measured(lambda: work(file))
        found = Attribution.load(file)
        some = np.random.default_rng(0).integers(rows, size=(2, 100))
        expected = (factors.left[some[0]] * factors.right[some[1], 0]).sum(1).numpy()
        apart = float(np.abs(found.beta[some[0], some[1], 0] - expected).max() / np.abs(expected).max())
        size = file.stat().st_size
    return {"rows": rows, "seconds": seconds, **took, "peak_bytes": peak, "file_bytes": size, "apart": apart}


def main() -> None:
    """One process a size."""
    records = []
    for rows in SIZES:
        command = [sys.executable, "-m", "benchmarks.attribution", str(rows)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ})
        records.append(json.loads(done.stdout.splitlines()[-1]))
        print(records[-1], flush=True)
        if records[-1]["apart"] > 1e-4:
            raise SystemExit(f"the file does not hold the product: {records[-1]['apart']:.2g} apart")
    measure.save("attribution", {"dimension": DIMENSION, "records": records})


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(one(int(sys.argv[1]))))
    else:
        main()
