"""A small model learns real news articles by heart and is to forget some of them: what MUSE measures, on AG news.

MUSE (Shi et al. 2024, arXiv 2407.06460) unlearns BBC news that may not be passed on; AG news stands in for them.
"""

from __future__ import annotations

import csv
import gzip
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from demur.files import cache_dir, hash_json
from demur.studies.npo import synthetic
from demur.studies.registry import NotMeasured, Progress
from demur.studies.results import Claim

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["METHODS", "news", "news_corpus", "news_models"]

SIZES = {"forget": 20, "retain": 60, "holdout": 20}
WORDS = (30, 45)  # of a description
VOCABULARY = 2000
# Each article is a sequence of its own: with so few, cutting at fixed lengths would part most of them in the middle.
LEARN: dict[str, Any] = {"learning_rate": 3e-3, "epochs": 24, "batch_size": 8, "warmup": 0.1, "chunk_length": 0}
UNLEARN: dict[str, Any] = {
    "learning_rate": 5e-4,
    "epochs": 20,
    "batch_size": 8,
    "schedule": "constant",
    "chunk_length": 0,
}
NEVER: dict[str, Any] = {"save_steps": 10**6, "device": "cpu"}
# NPO's β is a fifth of its default: its pull ends when a sequence has become e^(1/β) times less likely, which for an
# article of sixty tokens is not yet out of memory at 0.1.
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "GradDiff": ("graddiff", {}),
    "NPO+RT": ("npo", {"beta": 0.02}),
    "NPO+RT, β = 0.1": ("npo", {}),
    "SimNPO": ("simnpo", {}),
}
_VERSION = 1  # of how the models are made; raising it makes every cached one stale


@dataclass(frozen=True)
class NewsModels:
    """The models and where the articles are.

    Attributes:
        base: model folder; knows all articles but the hold-out ones by heart.
        gold: model folder; the same recipe, never saw the articles to forget.
        corpus: folder in MUSE's layout.
        files: set → file of raw texts.
    """

    base: Path
    gold: Path
    corpus: Path
    files: dict[str, str]


def news_corpus(seed: int) -> dict[str, list[str]]:
    """Articles drawn from AG news' test set: what to forget, what to keep, and what nobody sees.

    Raises:
        NotMeasured: AG news is not at hand.
    """
    shared = os.environ.get("DEMUR_SHARED_DATA")
    file = Path(shared) / "text_small" / "ag_news_test.csv.gz" if shared else None
    if file is None or not file.is_file():
        raise NotMeasured("AG news is not at hand: set DEMUR_SHARED_DATA to the folder that holds `text_small`")
    with gzip.open(file, "rt", encoding="utf-8", newline="") as lines:
        rows = [(row["title"], row["description"]) for row in csv.DictReader(lines)]
    texts = [f"{title}. {said}" for title, said in rows if WORDS[0] <= len(said.split()) <= WORDS[1]]
    clean = [text for text in texts if "\\" not in text and " ".join(text.split()) == text]
    drawn = np.random.default_rng(seed).choice(len(clean), sum(SIZES.values()), replace=False)
    articles, out, start = [clean[i] for i in drawn], {}, 0
    for name, size in SIZES.items():
        out[name], start = articles[start : start + size], start + size
    return out


def news_models(seed: int, progress: Progress) -> NewsModels:
    """Train both models, or take them from the cache.

    Args:
        seed: of the articles, the initial weights and the order of the rows.
        progress: told of both trainings, 2 steps in all.

    Raises:
        NotMeasured: AG news is not at hand.
    """
    from filelock import FileLock

    from demur.data import check_rows, dataset_from_rows, write_muse
    from demur.data.writers import write_rows
    from demur.lab import new_model
    from demur.training import TrainSettings, train

    articles = news_corpus(seed)
    key = hash_json([_VERSION, seed, articles, VOCABULARY, LEARN])[:16]
    work = cache_dir() / "studies" / f"news-{key}"
    work.mkdir(parents=True, exist_ok=True)
    known = {**articles, "all": articles["forget"] + articles["retain"]}
    rows = {name: check_rows(dataset_from_rows([{"text": t} for t in texts])) for name, texts in known.items()}
    files = {name: str(work / f"{name}.jsonl") for name in rows}
    runs: dict[str, Path] = {}
    with FileLock(work / ".lock"):
        if not (work / "corpus").is_dir():
            for name, table in rows.items():
                write_rows(files[name], table)
            write_muse(work / "corpus", rows["forget"], rows["retain"], rows["holdout"])
        if not (work / "new").is_dir():
            every = [text for texts in articles.values() for text in texts]
            new_model(every, vocabulary=VOCABULARY, seed=seed).save(work / "new")
        for done, (name, table) in enumerate({"base": "all", "gold": "retain"}.items()):
            progress(done, 2, "learning all articles" if name == "base" else "learning the kept articles")
            settings = TrainSettings(model=str(work / "new"), data=files[table], seed=seed, **LEARN, **NEVER)
            runs[name] = train(settings, work / name).model_path
    return NewsModels(runs["base"], runs["gold"], work / "corpus", files)


@synthetic.part("news", seeds=(1, 2, 3), minutes=2.5)
def news(seed: int, progress: Progress) -> dict[str, float]:
    """A small language model learns AG news articles by heart and unlearns some; MUSE's verbatim memory and leakage."""
    from demur.audits.muse import report_muse
    from demur.audits.muse_data import MuseData
    from demur.audits.muse_scoring import muse_samples
    from demur.data.muse import corpus_sets
    from demur.models import load_model
    from demur.training import ForgetSettings, forget

    steps = 5 + 2 * len(METHODS)
    world = news_models(seed, lambda done, total, note="": progress(2 * done, steps, note))
    data = MuseData.read(**corpus_sets(f"muse:{world.corpus}"))
    measured: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as holder:
        models = {"gold": world.gold, "before": world.base}
        for done, (name, (objective, options)) in enumerate(METHODS.items()):
            progress(4 + 2 * done, steps, name)
            settings = ForgetSettings(
                model=str(world.base),
                forget=world.files["forget"],
                retain=world.files["retain"],
                objective=objective,
                objective_options=options,
                retain_objective="nll",
                seed=seed,
                **UNLEARN,
                **NEVER,
            )
            models[name] = forget(settings, Path(holder) / str(done)).model_path
        gold = None
        for name, model in models.items():
            samples = muse_samples(load_model(model), data)
            gold = gold or samples
            summary = report_muse(samples, gold).summary
            for table in ("forget", "retain", "holdout"):
                measured[f"{name} {table}"] = summary[f"{table}_verbmem"]
                measured[f"{name} {table} extraction"] = summary[f"{table}_verbmem_extraction_strength"]
            measured |= {f"{name} auc": summary["mia_min_k"], f"{name} privleak": summary["privleak"]}
    return measured


@news.claims
def news_claims(m: pd.DataFrame) -> Iterator[Claim]:
    """What unlearning must do to texts known by heart, as far as MUSE's verbatim and privacy measures show it."""
    names = ("before", "gold", *METHODS)
    forget, retain = ({n: m[f"{n} {side}"] for n in names} for side in ("forget", "retain"))
    extraction = {n: m[f"{n} forget extraction"] for n in names}
    leakage = {n: m[f"{n} privleak"] for n in ("before", *METHODS)}
    yield Claim(
        text="News: before, the articles to be forgotten are known by heart (ROUGE-L F1 of the second halves)",
        measured=forget["before"],
        threshold=">= 0.9",
        kind="ours",
        baselines={
            "before, retain": retain["before"],
            "before, hold-out": m["before holdout"],
            "gold, forget": forget["gold"],
            "gold, retain": retain["gold"],
        },
    )
    yield Claim(
        text="… and a model that never saw them cannot go on with them",
        measured=forget["gold"],
        threshold="<= 0.2",
        kind="ours",
        baselines={"gold, hold-out": m["gold holdout"], "gold, extraction strength": extraction["gold"]},
    )
    yield Claim(
        text="An outsider sees that they were learned (privacy leakage in per cent; −100 is plainest)",
        measured=leakage["before"],
        threshold="<= -80",
        kind="ours",
        baselines={f"AUC of {n}": m[f"{n} auc"] for n in ("before", "gold")},
    )
    yield Claim(
        text="NPO with a retain term goes on with them hardly better than the gold model (difference of ROUGE-L F1)",
        measured=forget["NPO+RT"] - forget["gold"],
        threshold=">= -0.1 and <= 0.1",
        kind="ours",
        baselines={n: forget[n] - forget["gold"] for n in names if n not in ("gold", "NPO+RT")},
    )
    yield Claim(
        text="… nor can they be extracted (extraction strength)",
        measured=extraction["NPO+RT"],
        threshold="<= 0.1",
        kind="ours",
        baselines={n: extraction[n] for n in names if n != "NPO+RT"},
    )
    yield Claim(
        text="… while the articles to keep stay known by heart (ROUGE-L F1)",
        measured=retain["NPO+RT"],
        threshold=">= 0.9",
        kind="ours",
        baselines={n: retain[n] for n in names if n != "NPO+RT"},
    )
    yield Claim(
        text="Gradient difference forgets them too, at the cost of what was to be kept (retain ROUGE-L F1 below NPO's)",
        measured=retain["NPO+RT"] - retain["GradDiff"],
        threshold="> 0",
        kind="ours",
        baselines={"GradDiff, forget": forget["GradDiff"], "GradDiff, retain": retain["GradDiff"]},
    )
    yield Claim(
        text="Gradient difference overshoots, which gives away what it forgot to who counts probabilities (leakage)",
        measured=leakage["GradDiff"],
        threshold="> 20",
        kind="ours",
        baselines=leakage,
    )
