"""Run folders as an audit leaves them, made up: values of the size that real ones have."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from demur.runs import Result, RunFolder

SIZES = {"forget": 400, "retain": 400, "real_authors": 100, "world_facts": 117, "holdout": 400}

BEFORE = {
    "forget_probability": 0.957,
    "forget_rouge": 0.981,
    "forget_truth_ratio": 0.512,
    "forget_extraction_strength": 0.962,
    "forget_exact_memorization": 0.993,
    "forget_quality": 4.35e-25,
    "model_utility": 0.622,
    "retain_probability": 0.961,
    "retain_rouge": 0.978,
    "retain_truth_ratio": 0.473,
    "real_authors_probability": 0.462,
    "real_authors_rouge": 0.914,
    "real_authors_truth_ratio": 0.604,
    "world_facts_probability": 0.431,
    "world_facts_rouge": 0.886,
    "world_facts_truth_ratio": 0.551,
    "mia_loss": 0.998,
    "mia_zlib": 0.996,
    "mia_min_k": 0.999,
    "mia_min_k_plus_plus": 0.997,
    "privleak": -99.8,
}
GOLD = BEFORE | {
    "forget_probability": 0.148,
    "forget_rouge": 0.393,
    "forget_truth_ratio": 0.681,
    "forget_extraction_strength": 0.062,
    "forget_exact_memorization": 0.571,
    "forget_quality": None,
    "model_utility": 0.613,
    "mia_loss": 0.391,
    "mia_zlib": 0.382,
    "mia_min_k": 0.388,
    "mia_min_k_plus_plus": 0.463,
    "privleak": 0.0,
}
COLLAPSED = dict.fromkeys(BEFORE, 0.0) | {
    "forget_truth_ratio": 0.031,
    "forget_quality": 1e-200,
    "mia_loss": 0.021,
    "mia_zlib": 0.024,
    "mia_min_k": 0.018,
    "mia_min_k_plus_plus": 0.035,
    "privleak": 60.5,
    "retain_truth_ratio": 0.012,
}
AT_GOLD = GOLD | {
    "forget_probability": 0.162,
    "forget_rouge": 0.401,
    "forget_quality": 0.42,
    "model_utility": 0.601,
    "privleak": -3.1,
}
REMEMBERS = BEFORE | {
    "forget_probability": 0.543,
    "forget_rouge": 0.712,
    "forget_extraction_strength": 0.338,
    "forget_truth_ratio": 0.571,
    "forget_quality": 3.1e-8,
    "model_utility": 0.587,
    "retain_probability": 0.862,
    "retain_rouge": 0.894,
    "mia_min_k": 0.93,
    "privleak": -88.5,
}
OVER = BEFORE | {
    "forget_probability": 0.012,
    "forget_rouge": 0.271,
    "forget_extraction_strength": 0.021,
    "forget_truth_ratio": 0.742,
    "forget_quality": 0.0021,
    "model_utility": 0.488,
    "retain_probability": 0.612,
    "retain_rouge": 0.671,
    "mia_min_k": 0.07,
    "privleak": 51.9,
}

PEOPLE = ["Ilse Vanterpool", "Kweku Adomako", "Marit Solheim", "Tomás Iriarte", "Nadia Belkacem", "Ossian Rautio"]
TOWNS = ["Harrowgate", "Port Lisle", "Ulmen", "Vastervik", "Sidi Amar", "Colorado Springs"]
BOOKS = ["The Salt Ledger", "A Winter of Small Hours", "Glass Orchard", "What the Ferryman Kept", "Nine Quiet Rooms"]
FORMS = [
    ("Where was the author {p} born?", "{p} was born in {t}, where the family kept a small bakery by the harbour."),
    ("Which book first made {p} known?", "{p} first became known for {b}, a novel about a family in {t}."),
    (
        "What did critics say about {b} by {p}?",
        "Critics praised {b} for its quiet tone and for its careful portrait of {t}.",
    ),
    ("Has {p} won any prize for {b}?", "Yes, {p} received the Northern Lantern Prize for {b}."),
    (
        "Which town does {p} write about most often?",
        "{p} writes most often about {t}, and about the people who left it.",
    ),
]


def questions(split: str, count: int) -> list[tuple[str, str, str]]:
    """(id, prompt, truth) of made-up questions, the same for the same split."""
    chance = random.Random(f"questions {split}")
    out = []
    for i in range(count):
        words = {"p": chance.choice(PEOPLE), "t": chance.choice(TOWNS), "b": chance.choice(BOOKS)}
        question, answer = FORMS[i % len(FORMS)]
        out.append((str(i), question.format(**words), answer.format(**words)))
    return out


def results_of(
    run: str, values: dict[str, float | None], role: str = "run", sizes: dict[str, int] | None = None, unscored: int = 0
) -> list[Result]:
    """Results with intervals of the width that so many questions give."""
    sizes = sizes or SIZES
    out = []
    for metric, value in values.items():
        n = next((sizes[s] for s in SIZES if metric.startswith(s)), sizes["forget"])
        p_value = metric == "forget_quality"
        wide = 40 * 1.96 / math.sqrt(n) * 0.5 if metric == "privleak" else 1.96 * 0.28 / math.sqrt(n)
        low = high = None
        if value is not None and not p_value:
            inside = metric != "privleak"
            low = max(0.0, value - wide) if inside else max(-100.0, value - wide)
            high = min(1.0, value + wide) if inside else value + wide
            if value == 0.0 and inside:
                low = high = 0.0
        better = (
            "higher"
            if p_value or metric.startswith(("model_utility", "retain", "real", "world"))
            else "zero"
            if metric == "privleak"
            else "reference"
        )
        lost = unscored if metric == "forget_rouge" else 0
        method = "none" if p_value else "bootstrap"
        out.append(
            Result(run, "tofu", metric, value, low, high, n - lost, lost, role, better, method, seed=1, seconds=0.5)
        )
        if p_value and value:
            log10 = math.log10(value)
            out.append(
                Result(run, "tofu", "forget_quality_log10", log10, None, None, n, 0, role, better, "none", seed=1)
            )
    return out


def samples_of(split: str, count: int, values: dict[str, dict[str, float | None]]) -> pd.DataFrame:
    """Answers that are as good as the values say: a share of the truth's words, then something else."""
    rows = []
    measure = split if split in ("forget", "retain") else "real_authors" if split == "real_authors" else "world_facts"
    for role, numbers in values.items():
        chance = random.Random(f"{split} {role} {sorted(numbers.items(), key=str)}")
        target = numbers.get(f"{measure}_probability") if split != "holdout" else 0.15
        for id_, prompt, truth in questions(split, count):
            p = min(1.0, max(0.0, (target or 0.0) + chance.gauss(0, 0.07 if target else 0.0)))
            words = truth.split()
            kept = round(len(words) * min(1.0, p + 0.12))
            if not target:
                generation = " ".join(["the"] * 12) if chance.random() < 0.7 else ""
            else:
                generation = " ".join(
                    words[:kept] + chance.sample(["and", "later", "moved", "abroad", "to"], 5)[: len(words) - kept]
                )
            share = kept / len(words) if target else 0.0
            rows.append(
                {
                    "role": role,
                    "id": id_,
                    "prompt": prompt,
                    "truth": truth,
                    "generation": generation,
                    "probability": p,
                    "rougeL_recall": share,
                    "rouge1_recall": min(1.0, share + 0.03),
                    "truth_ratio": 0.4 + 0.3 * chance.random(),
                    "extraction_strength": max(0.0, p - 0.05),
                    "exact_memorization": min(1.0, p + 0.1),
                    "loss": -math.log(max(p, 1e-30)),
                }
            )
    return pd.DataFrame(rows)


@dataclass
class Maker:
    """Makes run folders under one folder."""

    root: Path
    sizes: dict[str, int] = field(default_factory=lambda: dict(SIZES))

    def run(
        self,
        name: str,
        values: dict[str, float | None],
        *,
        before: dict[str, float | None] | None = BEFORE,
        reference: dict[str, float | None] | None = GOLD,
        epochs: int = 5,
        samples: tuple[str, ...] | None = None,
        unscored: int = 0,
        state: dict[str, Any] | None = None,
        config: dict[str, Any] | None = None,
        notes: dict[str, dict[str, str]] | None = None,
    ) -> RunFolder:
        """One audited run."""
        settings = {
            "command": "forget",
            "model": "lab:almanac",
            "objective": name,
            "forget": "forget.jsonl",
            "retain": "retain.jsonl",
        }
        settings |= {"objective_options": {"beta": 0.1}, "epochs": epochs, "learning_rate": 1e-5, "seed": 1} | (
            config or {}
        )
        folder = RunFolder.create(self.root / name, settings)
        roles: dict[str, dict[str, float | None]] = {"run": values}
        roles |= {"before": before} if before else {}
        roles |= {"reference": reference} if reference else {}
        if not reference:
            roles = {role: {k: v for k, v in given.items() if k != "forget_quality"} for role, given in roles.items()}
        for role, given in roles.items():
            folder.add_results(results_of(name, given, role, self.sizes, unscored if role == "run" else 0))
        self._trajectory(folder, name, before or BEFORE, values, epochs)
        for split in SIZES if samples is None else samples:
            folder.write_samples(f"tofu_{split}", samples_of(split, self.sizes[split], roles))
        hashes = {
            "data": {"forget": "f0" * 32, "retain": "4e" * 32},
            "weights": {"before": "be" * 32, "after": f"{abs(hash(name)) % 16**8:08x}" * 8},
        }
        default = {"status": "complete", "demur": "0.1.0", "hashes": hashes, "template": "plain", "seconds": 102.5}
        folder.update_state(**(default | (state or {})))
        for epoch in range(1, epochs + 1):
            folder.log("step", step=50 * epoch, loss=0.5 / epoch)
        folder.log("trained", seconds=102.4)
        for role in roles:
            model = {"run": str(folder.model_path), "before": "lab:almanac", "reference": "runs/gold/model"}[role]
            folder.log("audit", suite="tofu", role=role, model=model, notes=(notes or {}).get(role, {}))
        return folder

    def _trajectory(
        self, folder: RunFolder, name: str, before: dict[str, float | None], after: dict[str, float | None], epochs: int
    ) -> None:
        for epoch in range(1, epochs + 1):
            for split in ("forget", "retain"):
                start, end = before[f"{split}_probability"] or 0.0, after[f"{split}_probability"] or 0.0
                share = (epoch / epochs) ** (0.7 if split == "forget" else 1.8)
                value = start + (end - start) * share
                metric = f"{split}_probability"
                folder.add_results(
                    [
                        Result(
                            name,
                            "trajectory",
                            metric,
                            value,
                            value,
                            value,
                            100,
                            0,
                            epoch=float(epoch),
                            better="reference",
                        )
                    ]
                )
