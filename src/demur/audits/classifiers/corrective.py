"""Corrective unlearning: undo a manipulation of the training set of which only some rows were found.

The benchmark of Goel et al. 2024 (arXiv 2402.14015). Whoever retrains without the rows that were found teaches the
others' manipulation again.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from demur.editing import edit, editors, fisher_diagonal
from demur.errors import UsageError
from demur.intervals import clopper_pearson

if TYPE_CHECKING:
    import pandas as pd

    from demur.data.labelled import Labelled
    from demur.data.manipulations import Manipulated, Manipulation
    from demur.models.classifier import Classifier

__all__ = [
    "CORRECTIVE_METHODS",
    "Candidates",
    "CorrectiveBenchmark",
    "corrective_counts",
    "dampened",
    "edited",
    "identified_rows",
]

Candidates = Callable[["Classifier", "Labelled", "Labelled", int], Iterator[tuple[Mapping[str, Any], "Classifier"]]]
"""A method with its grid: from model, rows found, all other rows and seed to edited models with their options."""

_SHARES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
_LAMBDAS = (0.1, 1.0, 10.0)


def edited(name: str, *settings: Mapping[str, Any]) -> Candidates:
    """A registered editing method with each of some settings of its options; with its defaults where there are none.

    Args:
        name: of the method.
        settings: options by name.

    Raises:
        UsageError: the method or an option is unknown.
    """
    component = editors.get(name)
    for options in settings:
        component.check_options(options)

    def candidates(
        model: Classifier, forget: Labelled, retain: Labelled, seed: int
    ) -> Iterator[tuple[Mapping[str, Any], Classifier]]:
        for options in settings or ({},):
            yield options, edit(name, model, forget, retain, seed=seed, **options)

    return candidates


def dampened(shares: Sequence[float] = _SHARES, lambdas: Sequence[float] = _LAMBDAS) -> Candidates:
    """Selective synaptic dampening with α = share · N/N_f and λ = a number times α, for every pair.

    Importances are those of single samples, for the training set as it was trained on; they are measured once.

    Args:
        shares: α as a share of its largest useful value.
        lambdas: λ in units of α.
    """

    def candidates(
        model: Classifier, forget: Labelled, retain: Labelled, seed: int
    ) -> Iterator[tuple[Mapping[str, Any], Classifier]]:
        importances = fisher_diagonal(model, retain.joined(forget))
        largest = (len(forget) + len(retain)) / len(forget)
        for share, factor in product(shares, lambdas):
            alpha = float(f"{share * largest:.6g}")
            options = {"alpha": alpha, "lam": float(f"{factor * alpha:.6g}")}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a grid is meant to reach too far on both sides
                yield options, edit("ssd", model, forget, retain, seed=seed, importances=importances, **options)

    return candidates


CORRECTIVE_METHODS: Mapping[str, Candidates] = {
    "retrain": edited("retrain"),
    "ft": edited("ft", {"epochs": 3, "learning_rate": 0.02}),
    "ssd": dampened(),
}
"""What the benchmark tries where no methods are named; "retrain" is exact unlearning of the rows found."""


def identified_rows(manipulated: Manipulated, ratio: float, seed: int = 0) -> Tensor:
    """The manipulated rows that were found: a uniform sample that grows with the ratio.

    Args:
        manipulated: the training set.
        ratio: their share of the manipulated rows, in (0, 1].
        seed: of the draw.

    Raises:
        UsageError: the ratio is out of range, or none is left of it.
    """
    count = round(ratio * len(manipulated.rows))
    if not 0 < ratio <= 1 or count < 1:
        raise UsageError(f"identification ratio {ratio:g}: it must be in (0, 1] and leave a row to be found")
    order = np.random.default_rng([seed, 15]).permutation(len(manipulated.rows))[:count]
    return manipulated.rows[torch.as_tensor(order)]


def corrective_counts(
    model: Classifier, manipulated: Manipulated, identified: Tensor, test: Labelled
) -> dict[str, tuple[int, int]]:
    """What is left of a manipulation, as hits and rows by metric; a metric without rows is left out.

    Args:
        model: what is measured.
        manipulated: its training set.
        identified: places of the rows that were found.
        test: clean rows that it was not trained on.
    """
    manipulation = manipulated.manipulation
    shown = model.predict(manipulation.shown(test)).argmax(1)
    plain = model.predict(test).argmax(1)
    about, wrong = manipulation.concerned(test.labels), manipulation.wrong(test.labels)
    right, attacked = shown == test.labels, wrong >= 0
    counts = {
        "corrected_accuracy": _share(right[about]),
        "retained_accuracy": _share((plain == test.labels)[about if about.all() else ~about]),
    }
    if attacked.any():
        counts["attack_success"] = _share((shown == wrong)[attacked])
        counts["corrected_without_target"] = _share(right[attacked])
    found = torch.isin(manipulated.rows, identified)
    for name, rows in (("identified", manipulated.rows[found]), ("unidentified", manipulated.rows[~found])):
        if len(rows):
            data, truth = manipulated.data.subset(rows), manipulated.clean.labels[rows]
            predicted, mislabelled = model.predict(data).argmax(1), data.labels != truth
            counts[f"{name}_corrected"] = _share(predicted == truth)
            if name == "identified" and mislabelled.any():
                counts["delete_error"] = _share((predicted == data.labels)[mislabelled])
    return counts


def _share(hits: Tensor) -> tuple[int, int]:
    return int(hits.sum()), len(hits)


def _accuracy(model: Classifier, data: Labelled, truth: Tensor) -> float:
    return float((model.predict(data).argmax(1) == truth).float().mean())


@dataclass(frozen=True)
class CorrectiveBenchmark:
    """Methods against a manipulation of which more and more was found.

    A method's setting is chosen by its accuracy on the rows found, by their corrected labels, plus its accuracy on
    validation rows; no test row and no row that was not found has a say.

    Attributes:
        data: the clean training set.
        test: rows never trained on.
        validation: others, for choosing settings.
        manipulation: what is done to the training set.
        n: manipulated rows.
        train: trains the original from data and seed.
        methods: name → method with its grid.
        ratios: shares of the manipulated rows that were found.
        seed: of the draws and the trainings.

    Raises:
        UsageError: a ratio is out of range, or there is no method.
    """

    data: Labelled
    test: Labelled
    validation: Labelled
    manipulation: Manipulation
    n: int
    train: Callable[[Labelled, int], Classifier]
    methods: Mapping[str, Candidates] = field(default_factory=lambda: dict(CORRECTIVE_METHODS))
    ratios: Sequence[float] = tuple(i / 10 for i in range(1, 11))
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.methods or not self.ratios:
            raise UsageError("a corrective benchmark needs a method and a ratio")
        for ratio in self.ratios:
            if not 0 < ratio <= 1:
                raise UsageError(f"identification ratio {ratio:g}: it must be in (0, 1]")

    def run(self, progress: Callable[[int, int, str], Any] | None = None) -> pd.DataFrame:
        """Manipulate, train, and undo with every method at every ratio.

        Args:
            progress: called with steps done, steps in all and what is going on.

        Returns:
            A row a number: method ("original" at ratio 0 before any), ratio, metric, value, low, high (exact), n,
            options (JSON, those chosen), tried (how many settings), seconds (of the one chosen) and search_seconds.
        """
        import pandas as pd

        tell = progress or (lambda done, total, what: None)
        total = 1 + len(self.ratios) * len(self.methods)
        tell(0, total, "original")
        manipulated = self.manipulation.manipulate(self.data, self.n, self.seed)
        original = self.train(manipulated.data, self.seed)
        nothing = torch.empty(0, dtype=torch.long)
        table = _rows("original", 0.0, corrective_counts(original, manipulated, nothing, self.test), {})
        for done, (ratio, name) in enumerate(product(self.ratios, self.methods), 1):
            tell(done, total, f"{name}, {ratio:.0%} found")
            identified = identified_rows(manipulated, ratio, self.seed)
            chosen, facts = self._best(self.methods[name], original, manipulated, identified)
            table += _rows(name, ratio, corrective_counts(chosen, manipulated, identified, self.test), facts)
        return pd.DataFrame(table)

    def _best(
        self, method: Candidates, original: Classifier, manipulated: Manipulated, identified: Tensor
    ) -> tuple[Classifier, dict[str, Any]]:
        """The candidate that does best on rows found and validation rows; of equals the first."""
        forget = manipulated.data.subset(identified, "the rows found")
        kept = torch.ones(len(self.data), dtype=torch.bool)
        kept[identified] = False
        retain = manipulated.data.subset(kept.nonzero()[:, 0], "all other rows")
        truth = manipulated.clean.labels[identified]
        best, highest, facts = original, -1.0, dict[str, Any]()
        started = time.perf_counter()
        tried = 0
        for options, model in method(original, forget, retain, self.seed):
            tried += 1
            score = _accuracy(model, forget, truth) + _accuracy(model, self.validation, self.validation.labels)
            if score > highest:
                best, highest = model, score
                facts = {"options": json.dumps(dict(options)), "seconds": model.facts.get("seconds")}
        return best, {**facts, "tried": tried, "search_seconds": time.perf_counter() - started}


def _rows(
    method: str, ratio: float, counts: Mapping[str, tuple[int, int]], facts: Mapping[str, Any]
) -> list[dict[str, Any]]:
    rows = []
    for metric, (hits, n) in counts.items():
        low, high = clopper_pearson(hits, n)
        rows.append({"method": method, "ratio": ratio, "metric": metric, "value": hits / n, "low": low, "high": high})
        rows[-1] |= {"n": n, "options": "{}", "tried": 0, "seconds": None, "search_seconds": None, **facts}
    return rows
