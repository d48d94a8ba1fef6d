"""The suite for corrective unlearning: an architecture, its rows, a manipulation, and which methods undo it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from demur.audits.classifiers.corrective import CORRECTIVE_METHODS, Candidates, CorrectiveBenchmark, edited
from demur.audits.request import AuditRequest
from demur.audits.roles import RoleProgress, make_settings
from demur.audits.samples import Samples
from demur.audits.suite_report import SuiteReport
from demur.audits.suites import suites
from demur.data.labelled_sources import read_labelled
from demur.data.manipulations import make_manipulation
from demur.editing.finetune import fresh
from demur.errors import UsageError
from demur.models import load_classifier, train_classifier
from demur.registry import nearest
from demur.runs import Better, Result, RunFolder

if TYPE_CHECKING:
    import pandas as pd

    from demur.data.labelled import Labelled
    from demur.data.manipulations import Manipulation
    from demur.models.classifier import Classifier

__all__ = ["CorrectiveSettings", "run_corrective"]

SUITE, CURVE = "corrective", "corrective_curve"
_SOURCES = ("data", "test", "validation")
_LOWER = ("attack_success", "delete_error")


@dataclass(frozen=True)
class CorrectiveSettings:
    """How the suite manipulates, trains and measures.

    Attributes:
        manipulation: "patch", "swap" or "shuffle".
        n: rows that are manipulated.
        ratios: shares of them that were found, as numbers or as text with commas.
        methods: names, as text with commas; or name → option → value or list of values, of which all are tried.
        size: pixels of a side of the patch.
        corner: where it is.
        target: the class that patched rows are labelled as, by name or number.
        classes: the two classes of a swap, as text with a comma.
        epochs, learning_rate, batch_size: how the model is trained, the first time and where it is retrained.
    """

    manipulation: str = "patch"
    n: int = 100
    ratios: Any = "0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,1"
    methods: Any = "retrain,ft,ssd"
    size: int = 3
    corner: str = "bottom_right"
    target: Any = 0
    classes: Any = ""
    epochs: int = 12
    learning_rate: float = 0.05
    batch_size: int = 64

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch_size, self.n) < 1 or self.learning_rate <= 0:
            raise UsageError("epochs, batch_size and n must be at least 1, learning_rate above 0")

    def made(self, data: Labelled) -> Manipulation:
        """The manipulation of a set."""
        if self.manipulation == "patch":
            target = _class_number(data, self.target)
            return make_manipulation("patch", size=self.size, corner=self.corner, target=target)
        if self.manipulation == "swap":
            two = [_class_number(data, word) for word in _words(self.classes)]
            if len(two) != 2:
                raise UsageError("a swap needs two classes: pass --option classes=3,8")
            return make_manipulation("swap", a=two[0], b=two[1])
        return make_manipulation(self.manipulation)

    @property
    def found(self) -> tuple[float, ...]:
        """The ratios as numbers."""
        try:
            return tuple(float(word) for word in _words(self.ratios))
        except ValueError:
            raise UsageError(f"ratios {self.ratios!r}: write numbers and commas, such as 0.1,0.5,1") from None

    @property
    def candidates(self) -> dict[str, Candidates]:
        """The methods with their grids."""
        recipe = {"epochs": self.epochs, "learning_rate": self.learning_rate, "batch_size": self.batch_size}
        known = {**CORRECTIVE_METHODS, "retrain": edited("retrain", recipe)}
        if not isinstance(self.methods, Mapping):
            return {name: known.get(name) or edited(name) for name in _words(self.methods)}
        return {
            name: edited(name, *_grid(options)) if options else known.get(name) or edited(name)
            for name, options in self.methods.items()
        }


def _words(value: Any) -> list[str]:
    parts = value if isinstance(value, Sequence) and not isinstance(value, str) else str(value).split(",")
    return [str(part).strip() for part in parts if str(part).strip()]


def _grid(options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every combination of the options' values."""
    lists = [value if isinstance(value, list) else [value] for value in options.values()]
    return [dict(zip(options, values, strict=True)) for values in product(*lists)]


def _class_number(data: Labelled, name: Any) -> int:
    text = str(name)
    if text in data.classes:
        return data.classes.index(text)
    if text.isdecimal() and int(text) < len(data.classes):
        return int(text)
    raise UsageError(f"{data.name} has no class {text!r}: {nearest(text, data.classes)}")


@suites.register(SUITE)
def run_corrective(
    request: AuditRequest, progress: RoleProgress | None = None
) -> tuple[RunFolder, Sequence[SuiteReport]]:
    """Manipulate training rows, train a model on them, and undo it with several methods as more and more is found.

    Args:
        request: the target names an architecture, which is trained anew; rows are the sources `data`, `test` and, for
            choosing settings, `validation`: by default a third of the test rows, which is then not tested on.
        progress: see `RoleProgress`.

    Returns:
        The folder and one report.

    Raises:
        UsageError: what was asked for cannot be done as asked.
    """
    request.check()
    settings = make_settings(CorrectiveSettings, f"a {SUITE}", request.settings)
    methods = settings.candidates
    data, test, validation = _rows(request)
    architecture = load_classifier(request.config.get("model", request.target))

    def train(rows: Labelled, seed: int) -> Classifier:
        return train_classifier(
            fresh(architecture, seed),
            rows,
            epochs=settings.epochs,
            learning_rate=settings.learning_rate,
            batch_size=settings.batch_size,
            seed=seed,
        )

    benchmark = CorrectiveBenchmark(
        data, test, validation, settings.made(data), settings.n, train, methods, settings.found, request.seed
    )
    table = benchmark.run(None if progress is None else lambda done, total, what: progress("run", what, done, total))
    folder = request.folder({"suite": SUITE, "sources": dict(request.sources), "reference": None})
    folder.write_samples(CURVE, table)
    report = SuiteReport(_results(table, folder.name, request.seed), _notes(table), Samples({}, request.target))
    report.save(folder)
    hashes = folder.state.get("hashes", {})
    folder.update_state(hashes={**hashes, "data": {**hashes.get("data", {}), "audit": data.hash()}})
    return folder, [report]


def _rows(request: AuditRequest) -> tuple[Labelled, Labelled, Labelled]:
    """Training, test and validation rows."""
    sources = {name: request.config[name] for name in ("data", "test") if request.config.get(name)}
    sources |= dict(request.sources)
    for name in sources:
        if name not in _SOURCES:
            raise UsageError(f"a {SUITE} audit has no set {name!r}: the sets are {', '.join(_SOURCES)}")
    for name in ("data", "test"):
        if name not in sources:
            raise UsageError(f"a {SUITE} audit needs --rows {name}=SOURCE, for instance digits:train and digits:test")
    target = request.config.get("target")
    read = {"data": read_labelled(sources["data"], target)}
    for name in sources.keys() - read.keys():
        read[name] = read_labelled(sources[name], target, like=read["data"])
    if "validation" not in read:
        order = torch.as_tensor(np.random.default_rng([request.seed, 17]).permutation(len(read["test"])))
        third = len(order) // 3
        read["validation"], read["test"] = read["test"].subset(order[:third]), read["test"].subset(order[third:])
    if not len(read["validation"]) or not len(read["test"]):
        raise UsageError(f"{sources['test']} has too few rows to choose settings by some and test on others")
    return read["data"], read["test"], read["validation"]


def _results(table: pd.DataFrame, run: str, seed: int) -> list[Result]:
    results = []
    for row in table.sort_values(["metric", "ratio"], kind="stable").to_dict("records"):
        better: Better = "lower" if row["metric"] in _LOWER else "higher"
        results.append(
            Result(
                run=run,
                suite=SUITE,
                metric=f"{row['metric']}:{row['method']}@{row['ratio']:g}",
                value=row["value"],
                low=row["low"],
                high=row["high"],
                n=row["n"],
                better=better,
                method="exact",
                seed=seed,
                seconds=row["seconds"] if row["seconds"] == row["seconds"] and row["seconds"] else 0.0,
            )
        )
    return results


def _notes(table: pd.DataFrame) -> dict[str, str]:
    """The settings that were chosen."""
    notes = {}
    for row in table[table["metric"] == "corrected_accuracy"].to_dict("records"):
        options = json.loads(row["options"])
        if row["tried"] > 1:
            said = ", ".join(f"{name}={value}" for name, value in options.items())
            notes[f"corrected_accuracy:{row['method']}@{row['ratio']:g}"] = f"{said}; {row['tried']} settings tried"
    return notes
