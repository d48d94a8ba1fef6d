"""A stream of tasks learned one after another, in its run folder."""

from __future__ import annotations

import copy
import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from demur.data.labelled import Labelled
from demur.data.labelled_sources import read_labelled
from demur.errors import UsageError
from demur.intervals import clopper_pearson
from demur.models.classifier import load_classifier
from demur.registry import nearest
from demur.runs import Result, RunFolder
from demur.training.continual import (
    PrototypeRelationDistillation,
    parted,
    small_encoder,
    small_projection,
    stream_scores,
)

__all__ = ["continual_run"]

SUITE = "continual"


def continual_run(
    data: str,
    test: str,
    tasks: str,
    out: str | Path,
    *,
    model: str | None = None,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    progress: Callable[[str, int, int], Any] | None = None,
) -> RunFolder:
    """Learn tasks in a row by prototype-sample relation distillation, and measure all earlier ones after each.

    A folder that the same settings finished before is returned as it is; nothing is written before the last task is
    learned.

    Args:
        data: source of the training pictures, see `data.labelled_sources.read_labelled`.
        test: source of the test pictures.
        tasks: classes of each task, by name or number, as in `0,1/2,3`; rows of other classes are left out.
        out: the run folder.
        model: classifier whose features go on learning; a small convolutional encoder from scratch by default.
        options: of `PrototypeRelationDistillation`, by name.
        seed: decides initial weights, prototypes, order and views.
        progress: told of the task, and of epochs done and to be done in it.

    Returns:
        The run folder: `model/` is what `PrototypeRelationDistillation.save` writes, suite "continual" holds the final
        scores and each task's accuracy after each task.

    Raises:
        UsageError: settings, data or model do not fit, or the folder holds another run.
    """
    started = time.perf_counter()
    options = _checked(options or {})
    settings = {"model": model, "data": data, "test": test, "tasks": tasks, "options": options, "seed": seed}
    config = {"command": "continual", **settings}
    run = RunFolder.check(out, config)
    if run.state.get("status") == "complete":
        return run
    train = read_labelled(data)
    held_out = read_labelled(test, like=train)
    if train.inputs.ndim != 4:
        raise UsageError(f"{train.name} holds no pictures: views are drawn by moving and dimming them")
    classes = _classes(tasks, train)
    streams = [parted(part, classes) for part in (train, held_out)]
    for part, stream in zip((train, held_out), streams, strict=True):
        for number, rows in enumerate(stream):
            if set(rows.labels.tolist()) != set(classes[number]):
                raise UsageError(f"{part.name} lacks rows of a class of task {number}")
    encoder, width = _encoder(model, train, seed)
    learner = PrototypeRelationDistillation(encoder, small_projection(width, seed=seed), seed=seed, **options)
    matrix = []
    for number, rows in enumerate(streams[0]):
        learner.fit_task(rows, None if progress is None else _told(progress, number, len(classes)))
        matrix.append(learner.accuracies(streams[1]))
    whole = learner.accuracies(streams[1], known_task=False)

    run = RunFolder.create(out, config)
    learner.save(run.model_path)
    seconds = time.perf_counter() - started
    results = _results(matrix, whole, [len(rows) for rows in streams[1]], run.name, seed, seconds)
    run.add_results(results)
    hashes = {"train": train.hash(), "test": held_out.hash()}
    run.update_state(status="complete", hashes={"data": hashes}, seconds=round(seconds, 2))
    return run


def _checked(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options with known names and values of the defaults' types."""
    parameters = inspect.signature(PrototypeRelationDistillation).parameters
    known = {n: p.default for n, p in parameters.items() if isinstance(p.default, int | float | str) and n != "seed"}
    out = {}
    for name, value in options.items():
        if name not in known:
            raise UsageError(f"continual learning has no option {name!r}: {nearest(name, known)}")
        kind = type(known[name])
        fits = isinstance(value, kind) or (kind is float and isinstance(value, int))
        if not fits or isinstance(value, bool) or (kind is not str and value < 0):
            words = {int: "a whole number of at least 0", float: "a number of at least 0", str: "a word"}
            raise UsageError(f"option {name} is {words[kind]}, not {value!r}")
        out[name] = kind(value)
    return out


def _classes(tasks: str, data: Labelled) -> list[list[int]]:
    out: list[list[int]] = []
    for written in tasks.split("/"):
        task = []
        for word in written.split(","):
            name = word.strip()
            if name not in data.classes and not (name.isdecimal() and int(name) < len(data.classes)):
                raise UsageError(f"tasks {tasks!r}: {data.name} has no class {name!r}: {nearest(name, data.classes)}")
            task.append(data.classes.index(name) if name in data.classes else int(name))
        out.append(task)
    every = [number for task in out for number in task]
    again = next((number for number in every if every.count(number) > 1), None)
    if again is not None:
        raise UsageError(f"tasks {tasks!r}: class {data.classes[again]!r} stands there twice")
    return out


def _encoder(model: str | None, data: Labelled, seed: int) -> tuple[nn.Module, int]:
    """An encoder and how many features it gives."""
    if model is None:
        return small_encoder(data.inputs.shape[1], seed=seed), 64
    classifier = load_classifier(model)
    width = classifier.head_layer.in_features
    module = copy.deepcopy(classifier.module)
    module.set_submodule(classifier.head, nn.Identity())
    return module, width


def _told(progress: Callable[[str, int, int], Any], number: int, tasks: int) -> Callable[[int, int], Any]:
    return lambda done, total: progress(f"task {number + 1}/{tasks}", done, total)


def _results(
    matrix: Sequence[Sequence[float]],
    whole: Sequence[float],
    sizes: Sequence[int],
    run: str,
    seed: int,
    seconds: float,
) -> list[Result]:
    """The final scores, and task by task after each with exact (Clopper–Pearson) intervals."""
    scores = {**stream_scores(matrix), "accuracy_all_classes": sum(whole) / len(whole)}
    empty = Result(run, SUITE, "", None, None, None, sum(sizes), method="none", seed=seed, seconds=seconds)
    out = [
        replace(empty, metric=name, value=value, better="lower" if name == "forgetting" else "higher")
        for name, value in scores.items()
    ]
    for after, row in enumerate(matrix):
        for task, value in enumerate(row):
            low, high = clopper_pearson(round(value * sizes[task]), sizes[task])
            name = f"accuracy:task {task} after {after}"
            measured = replace(empty, metric=name, value=value, n=sizes[task], better="higher", method="exact")
            out.append(replace(measured, low=low, high=high))
    return out
