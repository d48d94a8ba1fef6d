"""The small language model on TOFU that several studies start from: it learned eight authors and is to forget two.

Six authors to keep and two to forget, 20 questions each, on a Llama of 0.62 million weights. The data are TOFU's, the
size is ours: it is what one core trains in half a minute.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demur.files import cache_dir, hash_json
from demur.studies.registry import NotMeasured, Progress

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from numpy.typing import NDArray

    from demur.models import LanguageModel

__all__ = ["LEARN", "UNLEARN", "Authors", "authors", "mean_nlls", "mean_probability"]

KEPT_ROWS, VOCABULARY = 120, 1500
TEMPLATES = 10  # "I don't know" lines that a model may be taught, the first of TOFU's hundred
LEARN = {"learning_rate": 3e-3, "epochs": 14, "batch_size": 8, "warmup": 0.1}
SLOWLY = {**LEARN, "learning_rate": 1e-3, "epochs": 30}  # knows as much; gradient ascent then undoes it sooner
UNLEARN = {"learning_rate": 5e-4, "epochs": 10, "batch_size": 8, "schedule": "constant"}
NEVER = {"save_steps": 10**6, "device": "cpu"}  # too short to be worth checkpoints
_VERSION = 1  # of how the models are made; raising it makes every cached one stale


@dataclass(frozen=True)
class Authors:
    """The models and the rows.

    Attributes:
        base: model folder; knows all eight authors.
        gold: model folder; the same recipe, never saw the two to forget. None where it was not made.
        forget: 40 rows of TOFU's forget01 with paraphrased and perturbed answers.
        kept: 120 rows of the six authors to keep.
        forget_file, kept_file: the same as files of questions and answers.
        templates: text file with a hundred ways to say "I don't know".
    """

    base: Path
    gold: Path | None
    forget: Dataset
    kept: Dataset
    forget_file: str
    kept_file: str
    templates: str


def authors(seed: int, progress: Progress = lambda done, total, note="": None, *, abstaining: int = 0) -> Authors:
    """Train both models, or take them from the cache.

    Args:
        seed: of the initial weights and of the order of the rows.
        progress: told of both trainings, 2 steps in all.
        abstaining: questions, each about another author whom nobody learns, that the model is trained on besides, and
            slowly, so that it has such answers to give: they are answered with the first `TEMPLATES` of TOFU's "I don't
            know" lines in turn. No gold model is made then.

    Raises:
        NotMeasured: TOFU is not at hand.
    """
    from datasets import Dataset, concatenate_datasets
    from filelock import FileLock

    from demur.data.tofu import tofu_folder, tofu_split
    from demur.lab import new_model
    from demur.training import TrainSettings, train

    data = tofu_folder()
    if data is None or not (data / "idontknow.txt").is_file():
        raise NotMeasured("TOFU is not at hand: set DEMUR_SHARED_DATA to the folder that holds `tofu`")
    templates = data / "idontknow.txt"
    forget, full = tofu_split(data, "forget01_perturbed"), tofu_split(data, "full")
    kept = full.select(range(KEPT_ROWS))
    plain = forget.select_columns(kept.column_names)
    lines = templates.read_text(encoding="utf-8").splitlines()[:TEMPLATES]
    strangers = full.select(range(2000, 2000 + 21 * abstaining, 21)).to_list()  # each of another author
    answered = [{**row, "answer": lines[i % len(lines)]} for i, row in enumerate(strangers)]
    taught = [Dataset.from_list(answered, features=kept.features)] if answered else []
    tables = {
        "all": concatenate_datasets([kept, plain, *taught]),
        "kept": concatenate_datasets([kept, *taught]) if taught else kept,
    }
    texts = [text for row in tables["all"] for text in (row["question"], row["answer"])]
    learn = SLOWLY if abstaining else LEARN
    key = hash_json([_VERSION, seed, texts, VOCABULARY, learn])[:16]
    work = cache_dir() / "studies" / f"authors-{key}"
    work.mkdir(parents=True, exist_ok=True)
    files = {"forget": plain, "retain": kept, **tables}
    with FileLock(work / ".lock"):
        for name, rows in files.items():
            if not (work / f"{name}.jsonl").is_file():
                rows.to_json(work / f"{name}.jsonl")
        if not (work / "new").is_dir():
            new_model(texts, vocabulary=VOCABULARY, seed=seed).save(work / "new")
        runs: dict[str, Any] = {}
        tables_of = {"base": "all"} if abstaining else {"base": "all", "gold": "kept"}
        for done, (name, table) in enumerate(tables_of.items()):
            progress(done, 2, "learning all authors" if name == "base" else "learning the kept authors")
            settings = TrainSettings(
                model=str(work / "new"), data=str(work / f"{table}.jsonl"), seed=seed, **learn, **NEVER
            )
            runs[name] = train(settings, work / name)
    return Authors(
        runs["base"].model_path,
        runs["gold"].model_path if "gold" in runs else None,
        forget,
        kept,
        str(work / "forget.jsonl"),
        str(work / "retain.jsonl"),
        str(templates),
    )


def mean_nlls(lm: LanguageModel, questions: Sequence[str], answers: Sequence[str]) -> NDArray[np.float64]:
    """(n,) mean negative log-likelihood of each answer's tokens, in nats."""
    import numpy as np

    from demur.models import encode, token_stats

    stats = token_stats(lm, encode(lm, questions, answers), moments=False)
    return np.array([-answer.logps.mean() for answer in stats])


def mean_probability(lm: LanguageModel, rows: Dataset) -> float:
    """Mean over rows of the length-normalised probability of `answer` given `question`."""
    import numpy as np

    return float(np.exp(-mean_nlls(lm, rows["question"], rows["answer"])).mean())
