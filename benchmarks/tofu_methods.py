"""The unlearning methods on real TOFU questions, against the gold model, over three seeds.

`python -m benchmarks.tofu_methods [--seeds 0,1,2] [--out DIR]`

A small model trained from scratch stands in for Llama: it learns ten fictitious authors to keep, the two of `forget01`,
and the benchmark's real authors and world facts. Two authors that no model saw are the hold-out. Every method starts
from that model, with the same rows, batches, epochs and learning rate; nothing was tuned on the seeds reported.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks import measure

RETAIN, FORGET, HOLDOUT = "tofu:retain_perturbed[0:200]", "tofu:forget01_perturbed", "tofu:forget10_perturbed[0:40]"
FACTS = {"real_authors": "tofu:real_authors_perturbed", "world_facts": "tofu:world_facts_perturbed"}
LEARN = {"learning_rate": 4e-3, "epochs": 16, "batch_size": 16, "warmup": 0.1}
UNLEARN = {"epochs": 10, "batch_size": 8, "schedule": "constant", "learning_rate": 5e-4}
METHODS: dict[str, dict[str, Any]] = {
    "GA": {"objective": "ga"},
    "GradDiff": {"objective": "graddiff"},
    "IdkDPO": {"objective": "idkdpo"},
    "NPO": {"objective": "npo"},
    "NPO+NLL": {"objective": "npo", "retain_objective": "nll"},
    "NPO+KL": {"objective": "npo", "retain_objective": "kl"},
    "SimNPO": {"objective": "simnpo"},
}
SHOWN = (
    "forget_quality",
    "model_utility",
    "forget_probability",
    "forget_rouge",
    "forget_extraction_strength",
    "privleak",
    "retain_probability",
)


def rows_file(folder: Path, name: str, sources: Sequence[str]) -> str:
    """Questions and answers of several sources in one file."""
    from demur.data import read_rows

    file = folder / f"{name}.jsonl"
    lines = [
        json.dumps({"question": row["question"], "answer": row["answer"]}, ensure_ascii=False)
        for source in sources
        for row in read_rows(source)
    ]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(file)


def one_seed(seed: int, out: str) -> list[dict[str, Any]]:
    """Train, unlearn seven ways, audit; results are tidy rows."""
    import torch

    from demur.audits import AuditRequest, Trajectory, run_tofu
    from demur.data import read_rows, row_texts
    from demur.lab import new_model
    from demur.training import ForgetSettings, TrainSettings, forget, train

    torch.set_num_threads(1)
    work = Path(out) / f"seed-{seed}"
    work.mkdir(parents=True, exist_ok=True)
    everything = [RETAIN, *FACTS.values(), FORGET]
    if not (work / "new").exists():
        texts = [text for source in [*everything, HOLDOUT] for text in row_texts(read_rows(source))]
        new_model(texts, vocabulary=2500, seed=seed).save(work / "new")
    learn = {"model": str(work / "new"), "seed": seed, "device": "cpu", **LEARN}
    full = train(TrainSettings.make(data=rows_file(work, "full", everything), **learn), work / "full")
    gold = train(TrainSettings.make(data=rows_file(work, "kept", everything[:-1]), **learn), work / "gold")
    sources = {"forget": FORGET, "retain": RETAIN, "holdout": HOLDOUT, **FACTS}
    table: list[dict[str, Any]] = []
    for name, method in METHODS.items():
        settings = ForgetSettings.make(
            model=str(full.path),
            forget=FORGET,
            retain=RETAIN,
            holdout=HOLDOUT,
            seed=seed,
            device="cpu",
            **{**UNLEARN, **method},
        )
        run = forget(settings, work / name, Trajectory(settings, work / name))
        run_tofu(AuditRequest(target=str(run.path), reference=str(gold.path), sources=sources, seed=seed))
        found = run.results()
        found = found[(found["suite"] == "tofu") & found["metric"].isin(SHOWN)]
        for row in found.to_dict("records"):
            role = {"run": name, "before": "before", "reference": "gold"}[row["role"]]
            if role == name or name == next(iter(METHODS)):
                table.append(
                    {"method": role, "seed": seed, **{k: row[k] for k in ("metric", "value", "low", "high", "n")}}
                )
    return table


def main() -> None:
    """Run the seeds side by side and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--out", default="runs/tofu-methods")
    arguments = parser.parse_args()
    seeds = [int(s) for s in arguments.seeds.split(",")]
    with ProcessPoolExecutor(min(len(seeds), os.cpu_count() or 1), mp_context=get_context("spawn")) as pool:
        tables = list(pool.map(one_seed, seeds, [arguments.out] * len(seeds)))
    rows = [row for table in tables for row in table]
    twins = gold_against_gold(Path(arguments.out), seeds)
    settings = {"learn": LEARN, "unlearn": UNLEARN, "methods": METHODS}
    measure.save("tofu_methods", {"benchmark": __doc__, "settings": settings, "gold_vs_gold_p": twins, "rows": rows})
    print(markdown(rows))
    print("forget quality of one seed's gold model against another's (p):", twins)


def gold_against_gold(out: Path, seeds: Sequence[int]) -> dict[str, float]:
    """Two models that never saw the forget rows must pass for each other."""
    from demur.audits import forget_quality_test
    from demur.runs import RunFolder

    ratios = {}
    for seed in seeds:
        samples = RunFolder(out / f"seed-{seed}" / next(iter(METHODS))).samples("tofu_forget")
        assert samples is not None
        ratios[seed] = samples[samples["role"] == "reference"]["truth_ratio"].to_numpy()
    pairs = itertools.combinations(seeds, 2)
    return {f"{a} and {b}": float(forget_quality_test(ratios[a], ratios[b]).p) for a, b in pairs}


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Mean over seeds, with the smallest and the largest."""
    methods = ["before", "gold", *METHODS]
    lines = ["| method | " + " | ".join(SHOWN) + " |", "|---" * (len(SHOWN) + 1) + "|"]
    for method in methods:
        cells = []
        for metric in SHOWN:
            values = [r["value"] for r in rows if r["method"] == method and r["metric"] == metric]
            cells.append(f"{sum(values) / len(values):.3g} ({min(values):.3g} to {max(values):.3g})" if values else "")
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
