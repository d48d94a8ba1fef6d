"""One classifier made to forget, in its run folder."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

import demur
from demur.data.labelled import ForgetSplit, Labelled, split_off
from demur.data.labelled_sources import read_labelled
from demur.editing.registry import edit, editors, require_kind
from demur.editing.settings import EditSettings
from demur.errors import UsageError
from demur.files import atomic_directory, atomic_write
from demur.intervals import clopper_pearson
from demur.models.classifier import Classifier, load_classifier
from demur.models.descent import watched
from demur.processes import Progress
from demur.registry import Component
from demur.runs import Result, RunFolder

__all__ = ["edit_run"]

SUITE = "forget"
_FORGET_ROWS = "forget.npy"


def _silent(done: float, total: float, note: str = "") -> None: ...


def edit_run(settings: EditSettings, out: str | Path, progress: Progress = _silent) -> RunFolder:
    """Make a classifier forget rows; the edited one and what is known of it land in a run folder.

    A folder that the same settings finished before is returned as it is. Nothing is written before the edit is done,
    so that a run that is stopped leaves nothing behind.

    Args:
        settings: which classifier, on which rows, and how.
        out: the run folder.
        progress: called with the steps done, their number or 0 where it is not known, and what is being done.

    Returns:
        The run folder: `model/` loads with `load_classifier`, `forget.npy` holds the ids of the rows to forget, the
        results of suite "forget" are accuracies before and after, and the state holds hashes of data and weights and
        the method's facts.

    Raises:
        UsageError: settings, data or model are not fit for use, or the folder holds another run.
        DemurError: the method broke the model.
    """
    started = time.perf_counter()
    config = {"command": "forget", **settings.model_dump()}
    run = RunFolder.check(out, config)
    if run.state.get("status") == "complete" and run.model_path.is_dir():
        return run
    component, options = _method(settings)
    progress(0, 0, "reading")
    data = read_labelled(settings.data, settings.target)
    split = split_off(data, settings.forget, settings.seed)
    sets = {"forget": split.forget, "retain": split.retain, **_tests(settings, data, split)}
    model = load_classifier(settings.model)
    require_kind(component, model)
    _require_task(data, settings.task)
    model.require_reads(data)
    before = _accuracies(model, sets, run.name, "before", settings.seed)
    progress(0, 0, settings.method)
    with watched(lambda done, total, what: progress(done, total, f"{settings.method}, {what}")):
        edited = edit(settings.method, model, split.forget, split.retain, seed=settings.seed, **options)
    progress(0, 0, "measuring")
    after = _accuracies(edited, sets, run.name, "run", settings.seed)

    run = RunFolder.create(out, config)
    with atomic_directory(run.model_path) as folder:
        edited.save(folder)
    with atomic_write(run.path / _FORGET_ROWS) as temporary, temporary.open("wb") as file:
        np.save(file, split.forget.ids.numpy(), allow_pickle=False)
    run.add_results([*before, *after])
    facts = _plain(edited.facts)
    run.log("edited", **facts)
    run.update_state(
        status="complete",
        demur=demur.__version__,
        versions={name: version(name) for name in ("torch", "transformers", "scikit-learn")},
        hashes={
            "data": {"data": data.hash(), **{role: rows.hash() for role, rows in sets.items()}},
            "weights": {"before": model.weights_hash(), "after": edited.weights_hash()},
        },
        facts=facts,
        seconds=round(time.perf_counter() - started, 2),
    )
    return run


def _method(settings: EditSettings) -> tuple[Component, dict[str, Any]]:
    component = editors.get(settings.method)
    if "seed" in settings.options:
        raise UsageError("the seed is no option of a method: pass --seed")
    return component, component.typed(settings.options)


def _tests(settings: EditSettings, data: Labelled, split: ForgetSplit) -> dict[str, Labelled]:
    """The test rows; where whole classes are forgotten, those of the other classes, and theirs apart."""
    if settings.test is None:
        return {}
    test = read_labelled(settings.test, settings.target, like=data)
    if split.kind != "class":
        return {"test": test}
    gone = torch.isin(test.labels, split.forget.labels.unique())
    parts = {"test": ~gone, "test_of_forgotten": gone}
    return {role: test.subset(rows.nonzero()[:, 0]) for role, rows in parts.items() if rows.any()}


def _require_task(data: Labelled, task: str) -> None:
    """Refuse pictures where a table was announced, and the other way round."""
    wanted, dimensions = ("channels, height and width", 4) if task == "image-classification" else ("columns", 2)
    if data.inputs.ndim != dimensions:
        other = "tabular" if data.inputs.ndim == 2 else "image-classification"
        raise UsageError(f"{data.name} has rows of shape {data.row_shape}, not {wanted}: pass --task {other}")


def _accuracies(
    model: Classifier, sets: Mapping[str, Labelled], run: str, role: Literal["run", "before"], seed: int
) -> list[Result]:
    """Accuracy on each set with its exact (Clopper–Pearson) interval."""
    out = []
    for name, data in sets.items():
        started = time.perf_counter()
        hits = int((model.predict(data).argmax(1) == data.labels).sum())
        low, high = clopper_pearson(hits, len(data))
        out.append(
            Result(
                run=run,
                suite=SUITE,
                metric=f"accuracy_{name}",
                value=hits / len(data),
                low=low,
                high=high,
                n=len(data),
                role=role,
                better="reference" if "forget" in name or "forgotten" in name else "higher",
                method="exact",
                seed=seed,
                seconds=time.perf_counter() - started,
            )
        )
    return out


def _plain(value: Any) -> Any:
    """A fact as JSON can hold it: numbers, words, and lists of them; a number that is none is a word."""
    if isinstance(value, Tensor | np.ndarray):
        return _plain(value.tolist()) if math.prod(value.shape) <= 100 else f"array of shape {tuple(value.shape)}"
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
