"""The published TOFU logs of shared data as scoring passes."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from demur.audits.memorisation import normalised_probability
from demur.audits.tofu_data import TofuSamples
from demur.audits.truth_ratio import truth_ratios

_TASKS = {
    "eval_log_forget": "forget",
    "eval_log": "retain",
    "eval_real_author_wo_options": "real_authors",
    "eval_real_world_wo_options": "world_facts",
}


def published(folder: Path, log: str) -> TofuSamples:
    """The losses and ROUGE scores of one log, and what follows from them."""
    with gzip.open(folder / f"{log}.json.gz", "rt", encoding="utf-8") as file:
        tasks = json.load(file)
    return TofuSamples({_TASKS[task]: pd.DataFrame(map(_row, rows)) for task, rows in tasks.items()}, log)


def _row(row: dict[str, Any]) -> dict[str, Any]:
    false, probability = row["average_perturb_loss"], float(np.exp(-row["avg_gt_loss"]))
    return {
        "id": str(row["index"]),
        "loss": row["avg_gt_loss"],
        "probability": probability,
        "probability_normalised": normalised_probability(probability, np.exp(-np.array(false))),
        "truth_ratio": float(truth_ratios(row["avg_paraphrased_loss"], false)),
        "rougeL_recall": row["rougeL_recall"],
    }
