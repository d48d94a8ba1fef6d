"""The suite for worst-case forget sets: the hardest and the easiest rows to forget, beside random ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from demur.audits.classifiers.worst_case import (
    Difficulty,
    Mode,
    WorstCaseForgetSet,
    forget_set_difficulty,
    rank_by_loss,
)
from demur.audits.request import AuditRequest
from demur.audits.roles import RoleProgress, make_settings
from demur.audits.samples import Samples
from demur.audits.suite_report import SuiteReport
from demur.audits.suites import suites
from demur.data.labelled_sources import read_labelled
from demur.editing import edit
from demur.errors import UsageError
from demur.files import atomic_write
from demur.intervals import bootstrap_mean, clopper_pearson
from demur.models import load_classifier
from demur.runs import Better, Result, RunFolder

if TYPE_CHECKING:
    import pandas as pd

    from demur.data.labelled import Labelled
    from demur.models.classifier import Classifier

__all__ = ["WorstCaseSettings", "run_worst_case"]

SUITE, TABLE = "worst-case", "worst_case_sets"
_SOURCES = ("data", "test")
_BETTER: dict[str, Better] = {
    "unlearning_accuracy": "none",
    "loss": "none",
    "mia_nonmember_rate": "none",
    "test_accuracy": "higher",
}


@dataclass(frozen=True)
class WorstCaseSettings:
    """How the suite searches and measures.

    Attributes:
        size: rows in a forget set, or a share of the training set if it is below 1; with `groups` of the groups.
        groups: "class" weighs whole classes, "group" the rows' groups; rows by default.
        draws: random sets.
        outer_steps, lower_epochs, lower_rate, step, gamma, unlearner: of the search, see `WorstCaseForgetSet`.
        epochs, learning_rate, batch_size: how the model was trained, and is retrained without each set.
    """

    size: float = 0.1
    groups: str | None = None
    draws: int = 5
    outer_steps: int = 10
    lower_epochs: int = 2
    lower_rate: float = 1e-3
    step: Any = "auto"
    gamma: float = 1e-4
    unlearner: str = "ft"
    epochs: int = 12
    learning_rate: float = 0.05
    batch_size: int = 64

    def __post_init__(self) -> None:
        if self.groups not in (None, "class", "group"):
            raise UsageError(f"groups must be class or group, not {self.groups!r}")
        if self.draws < 2 or min(self.epochs, self.batch_size) < 1:
            raise UsageError("draws must be at least 2, epochs and batch_size at least 1")

    def search(self, mode: Mode, data: Labelled, seed: int) -> WorstCaseForgetSet:
        """The search of a mode on a training set."""
        return WorstCaseForgetSet(
            self.size,
            mode,
            self.unlearner,
            self.outer_steps,
            self.lower_epochs,
            self.lower_rate,
            self.batch_size,
            step=self.step,
            gamma=self.gamma,
            groups=self.numbers(data),
            seed=seed,
        )

    def numbers(self, data: Labelled) -> Tensor | None:
        """Each row's group as the search counts them, from 0 without gaps; None for rows on their own."""
        if self.groups is None:
            return None
        if self.groups == "group" and data.groups is None:
            raise UsageError(f"{data.name} has no groups: leave groups out or choose class")
        found = data.labels if self.groups == "class" else data.groups
        assert found is not None
        return found.unique(return_inverse=True)[1]


@suites.register(SUITE)
def run_worst_case(
    request: AuditRequest, progress: RoleProgress | None = None
) -> tuple[RunFolder, Sequence[SuiteReport]]:
    """Search for the forget sets that are hardest and easiest, retrain without them and without random ones.

    The folder gets `forget.npy`, the ids of the hardest set's rows, for `demur forget --forget rows:forget.npy`, and
    `easiest.npy`.

    Args:
        request: the target is a model that was trained on the source `data`; `test` are rows it has not seen.
        progress: see `RoleProgress`.

    Returns:
        The folder and one report.

    Raises:
        UsageError: what was asked for cannot be done as asked.
    """
    request.check()
    settings = make_settings(WorstCaseSettings, f"a {SUITE}", request.settings)
    data, test = _rows(request)
    model = load_classifier(request.target)
    model.require_reads(data)
    sets = _sets(model, data, settings, request.seed, progress)
    found: dict[str, Difficulty] = {}
    for done, (name, rows) in enumerate(sets.items()):
        if progress is not None:
            progress("run", "retraining", done, len(sets))
        kept = torch.ones(len(data), dtype=torch.bool).index_fill_(0, rows, False).nonzero()[:, 0]
        forget, retain = data.subset(rows, "the forget set"), data.subset(kept, "the retain set")
        recipe = {"epochs": settings.epochs, "learning_rate": settings.learning_rate, "batch_size": settings.batch_size}
        retrained = edit("retrain", model, forget, retain, seed=request.seed + 1, **recipe)
        found[name] = forget_set_difficulty(retrained, forget, retain, test)
    if progress is not None:
        progress("run", "retraining", len(sets), len(sets))
    folder = request.folder({"suite": SUITE, "sources": dict(request.sources), "reference": None})
    for name, file in (("worst", "forget.npy"), ("easiest", "easiest.npy")):
        with atomic_write(folder.path / file) as temporary, temporary.open("wb") as out:
            np.save(out, data.ids[sets[name]].numpy())
    folder.write_samples(TABLE, _table(found))
    results = _results(found, folder.name, request.seed)
    report = SuiteReport(results, _notes(sets), Samples({}, request.target))
    report.save(folder)
    hashes = folder.state.get("hashes", {})
    folder.update_state(hashes={**hashes, "data": {**hashes.get("data", {}), "audit": data.hash()}})
    return folder, [report]


def _rows(request: AuditRequest) -> tuple[Labelled, Labelled]:
    sources = {name: request.config[name] for name in _SOURCES if request.config.get(name)} | dict(request.sources)
    for name in sources:
        if name not in _SOURCES:
            raise UsageError(f"a {SUITE} audit has no set {name!r}: the sets are {', '.join(_SOURCES)}")
    for name in _SOURCES:
        if name not in sources:
            raise UsageError(f"a {SUITE} audit needs --rows {name}=SOURCE, for instance digits:train and digits:test")
    data = read_labelled(sources["data"], request.config.get("target"))
    return data, read_labelled(sources["test"], request.config.get("target"), like=data)


def _sets(
    model: Classifier, data: Labelled, settings: WorstCaseSettings, seed: int, progress: RoleProgress | None
) -> dict[str, Tensor]:
    """Places of the rows of each set, by the set's name."""
    groups = settings.numbers(data)

    def rows(found: Tensor) -> Tensor:
        return found if groups is None else torch.isin(groups, found).nonzero()[:, 0]

    def told(mode: str) -> Any:
        return None if progress is None else lambda done, total: progress("run", f"searching, {mode}", done, total)

    modes: tuple[Mode, ...] = ("worst", "easiest")
    found = {mode: settings.search(mode, data, seed).find(model, data, told(mode)).indices for mode in modes}
    sets: dict[str, Tensor] = {mode: rows(indices) for mode, indices in found.items()}
    if groups is None:
        sets["ranking"] = rank_by_loss(model, data, len(found["worst"]))
    count = len(data) if groups is None else int(groups.max()) + 1
    for draw in range(settings.draws):
        order = np.random.default_rng([seed, 18, draw]).permutation(count)[: len(found["worst"])]
        sets[f"random {draw + 1}"] = rows(torch.as_tensor(np.sort(order)))
    return sets


def _table(found: dict[str, Difficulty]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame([{"set": name, "rows": len(d.losses), **d.summary} for name, d in found.items()])


def _results(found: dict[str, Difficulty], run: str, seed: int) -> list[Result]:
    results = []
    named = {name: d for name, d in found.items() if not name.startswith("random")}
    drawn = [d.summary for name, d in found.items() if name.startswith("random")]
    for metric, better in _BETTER.items():
        told = {"run": run, "suite": SUITE, "better": better, "seed": seed}
        for name, d in named.items():
            value, label = d.summary[metric], f"{metric}:{name}"
            n = len(d.test_right) if metric == "test_accuracy" else len(d.losses)
            if metric == "loss":
                low, high = bootstrap_mean(d.losses, seed=seed)
                results.append(Result(metric=label, value=value, low=low, high=high, n=n, **told))  # type: ignore[arg-type]
            else:
                low, high = clopper_pearson(round(value * n), n)
                results.append(
                    Result(metric=label, value=value, low=low, high=high, n=n, method="exact", **told)  # type: ignore[arg-type]
                )
        values = np.array([summary[metric] for summary in drawn])
        low, high = bootstrap_mean(values, seed=seed)
        results.append(
            Result(metric=f"{metric}:random", value=float(values.mean()), low=low, high=high, n=len(values), **told)  # type: ignore[arg-type]
        )
    return results


def _notes(sets: dict[str, Tensor]) -> dict[str, str]:
    """What a ranking without any search has in common with the worst set."""
    if "ranking" not in sets:
        return {}
    shared = float(torch.isin(sets["ranking"], sets["worst"]).float().mean())
    return {"loss:ranking": f"the rows of lowest loss before any forgetting; {shared:.0%} of them are in the worst set"}
