"""All methods that make a classifier forget, on three kinds of forget set, beside retrained models, over three seeds.

`python -m benchmarks.classifier_methods [--sets digits,mnist,cifar10] [--seeds 1,2,3] [--out DIR]`

A small residual network learns scikit-learn's digits (and parts of MNIST and CIFAR-10 where they are there) and is
made to forget a class, a tenth of its rows drawn at random, or one way of writing a digit. Settings are chosen on
seed 0, which is not reported, by the average gap to a retrained model with the last fifth of the training rows in the
place of the test rows; no test row decides anything. MNIST and CIFAR-10 take the settings of digits over. Every
finished cell is kept under `--out`, so that a run that was stopped goes on where it was. The page is
`docs/classifier-results.md`.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import os
import time
import warnings
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import measure
from benchmarks.classifier_page import write_page

if TYPE_CHECKING:
    from demur.audits.classifiers import Measured, UnlearnSplits
    from demur.data.labelled import ForgetSplit, Labelled
    from demur.models.classifier import Classifier

VERSION = 1
KINDS = ("class", "random", "group")
TUNED = 0  # the seed that settings are chosen on
AGAIN = 1000  # between the seeds of a retrained model and of a second one
ROWS = {"digits": (1200, 597), "mnist": (1000, 500), "cifar10": (1500, 600)}  # for training and testing
RELEARN = {"digits": 120, "mnist": 60, "cifar10": 60}  # steps

# Method → settings to choose from; what is not here runs with its defaults. The defaults of many methods are for
# networks of ten million weights and images by the ten thousand, so most lists hold larger steps too.
GRID: dict[str, list[dict[str, Any]]] = {
    "amnesiac": [{"learning_rate": rate, "batch_size": 64} for rate in (1e-4, 1e-3, 3e-3)],
    "bad-teacher": [{"learning_rate": rate, "epochs": 3, "batch_size": 64} for rate in (1e-4, 1e-3, 3e-3)],
    "boundary-expand": [{"learning_rate": rate} for rate in (1e-4, 1e-3, 1e-2)],
    "boundary-shrink": [{"learning_rate": rate} for rate in (1e-4, 1e-3, 1e-2)],
    "cf-k": [{"learning_rate": rate} for rate in (0.01, 0.05)],
    "dmm": [{"models": 100, "train_epochs": 8, "epochs": 60, "gamma": 1.0, "learning_rate": 3e-3}],
    "eu-k": [{"k": k} for k in (1, 3)],
    "fisher": [{"alpha": alpha} for alpha in (1e-8, 1e-7, 1e-6)],
    "ft": [{"learning_rate": rate} for rate in (0.01, 0.05, 0.1)],
    "ga": [{"learning_rate": rate} for rate in (1e-4, 1e-3, 3e-3, 1e-2)],
    "influence": [{"alpha": alpha} for alpha in (0.2, 1.0, 5.0, 20.0)],
    "laf": [
        {"lr_unlearn": unlearn, "lr_align": align, "steps": 400}
        for unlearn, align in ((5e-5, 1e-4), (5e-4, 1e-3), (2e-3, 2e-3))
    ],
    "l1-sparse": [{"learning_rate": rate, "gamma": gamma} for rate in (0.01, 0.05) for gamma in (5e-4, 2e-3)],
    "neggrad+": [{"alpha": alpha} for alpha in (0.99, 0.95, 0.9)],
    "om": [{"epochs": 60, "gamma": 1.0, "learning_rate": 3e-3}],
    "pseudo-label": [{"learning_rate": rate} for rate in (1e-3, 0.01)],
    "rl": [{"learning_rate": rate, "epochs": epochs} for rate in (3e-3, 0.013) for epochs in (3, 10)],
    "salun": [{"learning_rate": rate, "epochs": epochs} for rate in (3e-3, 0.013) for epochs in (3, 10)],
    "scrub": [{"learning_rate": rate, "epochs": 6, "msteps": m} for rate in (5e-4, 5e-3, 2e-2) for m in (2, 4)],
    "ssd": [{"alpha_relative": share} for share in (0.2, 0.3, 0.4, 0.5, 0.7)],
    "unsir": [{"learning_rate": rate} for rate in (1e-4, 1e-3, 3e-3)],
}
LEFT_OUT = ("retrain",)  # it is what the others are measured against
POPULOUS = ("dmm", "om")  # they train models of their own by the dozen: on digits only


@dataclass(frozen=True)
class World:
    """One set, one kind of forget set, one seed: the rows and the models that no method changes."""

    splits: UnlearnSplits
    original: Classifier
    before: Measured
    retrained: Measured
    again: Measured


def rows(name: str, seed: int) -> tuple[Labelled, Labelled]:
    """Training and test rows; for the seed that settings are chosen on a part of the training rows is the test."""
    import torch

    from demur.data.labelled_sources import read_labelled

    train, test = ROWS[name]
    known = read_labelled(f"{name}:train[0:{train}]", seed=seed)
    if seed != TUNED:
        return known, read_labelled(f"{name}:test[0:{test}]", seed=seed)
    fit = len(known) * 4 // 5
    numbers = torch.arange(len(known))
    return known.subset(numbers[:fit]), known.subset(numbers[fit:], "the validation rows")


def parted(train: Labelled, kind: str, seed: int) -> ForgetSplit:
    """Part the training rows: class 3, 4, 5 by seed; a tenth; or one way of writing the digit."""
    from dataclasses import replace

    import numpy as np
    import torch
    from sklearn.cluster import KMeans

    from demur.data.labelled import split_off

    wanted = (seed + 2) % len(train.classes)
    if kind == "class":
        return split_off(train, f"class:{wanted}", seed)
    if kind == "random":
        return split_off(train, "random:0.1", seed)
    own = (train.labels == wanted).nonzero()[:, 0]
    flat = train.subset(own).batch()[0].flatten(1).numpy()
    found = KMeans(n_clusters=3, n_init=10, random_state=0).fit(flat)
    centres = found.cluster_centers_
    farthest = int(np.linalg.norm(centres[:, None] - centres[None], axis=2).sum(1).argmax())
    groups = torch.zeros(len(train), dtype=torch.long)
    groups[own[torch.as_tensor(found.labels_ == farthest)]] = 1
    return split_off(replace(train, groups=groups), "group:1", seed)


@functools.lru_cache(maxsize=2)
def world(name: str, kind: str, seed: int) -> World:
    """The world; models come from the cache where they were trained before."""
    import torch

    from demur.audits.classifiers import UnlearnSplits
    from demur.audits.classifiers import measure as measured
    from demur.lab.digits import trained_resnet

    torch.set_num_threads(1)
    train, test = rows(name, seed)
    split = parted(train, kind, seed)
    splits = UnlearnSplits.of(split, test)
    models = [trained_resnet(train, seed), *(trained_resnet(split.retain, s) for s in (seed, seed + AGAIN))]
    steps = 0 if seed == TUNED else RELEARN[name]
    found = [measured(model, splits, relearn_steps=steps, seed=seed) for model in models]
    return World(splits, models[0], found[0], found[1], found[2])


def cell(name: str, kind: str, seed: int, method: str, options: dict[str, Any], out: str) -> dict[str, Any]:
    """One method in one world: metric → value, low, high; or why there are none. Kept in a file of its own."""
    from demur.files import hash_json, write_json

    key = hash_json([VERSION, ROWS[name], RELEARN[name], name, kind, seed, method, options])[:16]
    file = Path(out) / f"{name}-{kind}-{seed}-{method}-{key}.json"
    if file.is_file():
        return dict(json.loads(file.read_text()))
    found: dict[str, Any] = {"set": name, "kind": kind, "seed": seed, "method": method, "options": options}
    found |= _measured(world(name, kind, seed), name, seed, method, options)
    write_json(file, found)
    return found


def _measured(here: World, name: str, seed: int, method: str, options: dict[str, Any]) -> dict[str, Any]:
    from demur.audits.classifiers import evaluate
    from demur.audits.classifiers import measure as measured
    from demur.editing import edit
    from demur.errors import DemurError

    known = {"before": here.before, "retrained": here.retrained, "retrained again": here.again}
    if method in known:
        model = known[method]
    else:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                made = edit(method, here.original, here.splits.forget, here.splits.retain, seed=seed, **options)
        except DemurError as error:
            return {"problem": str(error)}
        model = measured(made, here.splits, relearn_steps=0 if seed == TUNED else RELEARN[name], seed=seed)
    numbers = evaluate(model, here.splits, here.retrained, original=here.before, seed=seed)
    return {"metrics": {m.metric: [m.value, m.low, m.high] for m in numbers if m.value is not None}}


def methods() -> list[str]:
    """Every registered method that edits networks."""
    from demur.editing import editors

    return [m for m in editors.names() if "network" in editors.get(m).facts["kinds"] and m not in LEFT_OUT]


def chosen(pool: ProcessPoolExecutor, out: str) -> dict[str, dict[str, dict[str, Any]]]:
    """Kind → method → the settings nearest to a retrained model on the seed and the rows kept for choosing."""
    jobs = [
        ("digits", kind, TUNED, method, options, out)
        for kind in KINDS
        for method in methods()
        if len(GRID.get(method, ())) > 1
        for options in GRID[method]
    ]
    best: dict[str, dict[str, Any]] = {kind: {m: GRID.get(m, [{}])[0] for m in methods()} for kind in KINDS}
    gaps: dict[tuple[str, str], float] = {}
    for found in _run(pool, jobs, "choosing settings"):
        place = found["kind"], found["method"]
        gap = found.get("metrics", {}).get("average_gap", [float("inf")])[0]
        if gap < gaps.get(place, float("inf")):
            gaps[place] = gap
            best[found["kind"]][found["method"]] = found["options"]
    return best


def _run(pool: ProcessPoolExecutor, jobs: Sequence[tuple[Any, ...]], what: str) -> Iterable[dict[str, Any]]:
    """All cells, those of one world one after another in one process."""
    started, done = time.monotonic(), 0
    worlds = [list(group) for _, group in itertools.groupby(jobs, key=lambda job: job[:3])]
    # Long groups are cut in two, so that no process waits for the other at the end.
    parts = [part for group in worlds for part in (group[::2], group[1::2]) if part]
    for found in pool.map(_cells, parts):
        done += len(found)
        print(f"{what}: {done}/{len(jobs)}, {time.monotonic() - started:.0f} s", flush=True)
        yield from found


def _cells(jobs: Sequence[tuple[Any, ...]]) -> list[dict[str, Any]]:
    return [cell(*job) for job in jobs]


def main() -> None:
    """Choose settings, measure every cell, write results and page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", default="digits,mnist,cifar10")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--out", default="runs/classifier-methods")
    arguments = parser.parse_args()
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    Path(arguments.out).mkdir(parents=True, exist_ok=True)
    os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(os.cpu_count() or 1, mp_context=get_context("spawn")) as pool:
        settings = chosen(pool, arguments.out)
        given = {"before": {}, "retrained": {}, "retrained again": {}}
        jobs = [
            (name, kind, seed, method, options, arguments.out)
            for name in _here(arguments.sets.split(","))
            for kind in (KINDS if name == "digits" else ("class",))
            for seed in (seeds if name == "digits" else seeds[:1])
            for method, options in {**given, **settings[kind]}.items()
            if name == "digits" or method not in POPULOUS
        ]
        cells = list(_run(pool, jobs, "measuring"))
    measure.save("classifier_methods", {"benchmark": __doc__, "settings": settings, "cells": cells})
    for written in write_page(cells, settings):
        print(written)


def _here(names: Sequence[str]) -> list[str]:
    """The sets whose data is here."""
    from demur.data.labelled_sources import read_labelled
    from demur.errors import DemurError

    found = []
    for name in names:
        try:
            read_labelled(f"{name}:train[0:1]")
        except DemurError as error:
            print(f"without {name}: {error}", flush=True)
        else:
            found.append(name)
    return found


if __name__ == "__main__":
    main()
