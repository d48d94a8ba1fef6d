"""Worst-case forget sets (arXiv 2403.07362): which rows are forgotten says more than how.

Of 800 digits 80 are to be forgotten. Searched for are those that a model trained without them still knows best and
least; beside them stand nine random draws, and the rows with the lowest loss of the model as it was trained.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from demur.audits.classifiers.worst_case import WorstCaseForgetSet, forget_set_difficulty, rank_by_loss
from demur.data.labelled_sources import read_labelled
from demur.lab.digits import trained_resnet
from demur.studies.registry import Progress, study
from demur.studies.results import Claim

if TYPE_CHECKING:
    import pandas as pd

ROWS, SIZE, DRAWS = 800, 80, 9
EPOCHS, OUTER = 10, 4
SETS = ("worst", "easiest", "ranking")
SHORT_STEP = 1.0


@study("worst-case-forget", paper="2403.07362", minutes=1, seeds=(1, 2, 3))
def digits(seed: int, progress: Progress) -> dict[str, float]:
    """Retrained models on the hardest, the easiest and random forget sets of 80 digits."""
    data = read_labelled("digits:train", seed=seed).subset(range(ROWS))
    test = read_labelled("digits:test", seed=seed)
    total = len(SETS) + DRAWS + 2
    progress(0, total, "training")
    model = trained_resnet(data, seed, EPOCHS)

    def search(mode: str, step: float | str = "auto") -> Tensor:
        made = WorstCaseForgetSet(SIZE, mode=mode, step=step, outer_steps=OUTER, seed=seed)  # type: ignore[arg-type]
        return made.find(model, data).indices

    sets = {
        "worst": search("worst"),
        "easiest": search("easiest"),
        "ranking": rank_by_loss(model, data, SIZE),
        "short step": search("worst", SHORT_STEP),
    }
    for draw in range(DRAWS):
        sets[f"random {draw}"] = torch.as_tensor(np.random.default_rng([seed, draw]).permutation(ROWS)[:SIZE])
    start = torch.as_tensor(np.random.default_rng([seed, 16]).permutation(ROWS)[:SIZE])
    measured = {"short step of the start": float(torch.isin(sets["short step"], start).float().mean())}
    for done, (name, rows) in enumerate(sets.items(), 1):
        progress(done, total, name)
        kept = torch.ones(ROWS, dtype=torch.bool).index_fill_(0, rows, False).nonzero()[:, 0]
        retain = data.subset(kept)
        retrained = trained_resnet(retain, seed + 100, EPOCHS)
        found = forget_set_difficulty(retrained, data.subset(rows), retain, test).summary
        measured |= {f"{name} {metric}": value for metric, value in found.items()}
    return measured


@digits.claims
def claims(m: pd.DataFrame) -> Iterator[Claim]:
    """What the paper says of models retrained without the sets."""

    def of(name: str, metric: str) -> pd.Series:
        return m[f"{name} {metric}"]

    def drawn(metric: str) -> pd.DataFrame:
        return m[[f"random {draw} {metric}" for draw in range(DRAWS)]]

    def beside(metric: str, *names: str) -> dict[str, pd.Series]:
        random = drawn(metric)
        spread = {"random, mean": random.mean(axis=1), "lowest": random.min(axis=1), "highest": random.max(axis=1)}
        return {**spread, **{name: of(name, metric) for name in names}}

    forgotten, loss, outside, tests = "unlearning_accuracy", "loss", "mia_nonmember_rate", "test_accuracy"
    yield Claim(
        text="The worst set is fitted without having been seen (its loss, as a share of random sets' mean loss)",
        measured=of("worst", loss) / drawn(loss).mean(axis=1),
        threshold="<= 0.2",
        baselines={name: of(name, loss) / drawn(loss).mean(axis=1) for name in ("ranking", "short step", "easiest")},
    )
    yield Claim(
        text="Retraining gets none of its rows wrong (unlearning accuracy)",
        measured=of("worst", forgotten),
        threshold="<= 0.0125",
        baselines=beside(forgotten, "ranking", "short step"),
    )
    yield Claim(
        text="An attack takes all of them for members (share taken for never seen)",
        measured=of("worst", outside),
        threshold="<= 0.03",
        baselines=beside(outside, "ranking", "short step"),
    )
    yield Claim(
        text="and fewer of them than of any random set (difference to the lowest of nine)",
        measured=of("worst", outside) - drawn(outside).min(axis=1),
        threshold="< 0",
        baselines={"ranking": of("ranking", outside) - drawn(outside).min(axis=1)},
    )
    yield Claim(
        text="The easiest set is got wrong by retraining (unlearning accuracy)",
        measured=of("easiest", forgotten),
        threshold=">= 0.2",
        baselines=beside(forgotten, "worst"),
    )
    yield Claim(
        text="Test accuracy does not tell them apart (difference between the worst and random sets' mean)",
        measured=(of("worst", tests) - drawn(tests).mean(axis=1)).abs(),
        threshold="<= 0.03",
        baselines=beside(tests, "worst", "ranking", "easiest"),
    )
    yield Claim(
        text="A step of 1 stays with the random rows it began with (share of the set that is from the start)",
        measured=m["short step of the start"],
        threshold=">= 0.5",
        kind="ours",
        baselines={"its loss": of("short step", loss), "the worst set's": of("worst", loss)},
    )
