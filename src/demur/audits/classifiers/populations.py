"""Many models in the place of one: what a method leaves behind in each row, seen over a population of models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from demur.audits.classifiers.klom import kl_of_margins
from demur.audits.classifiers.lira import u_lira, u_lira_tpr
from demur.audits.classifiers.scores import Measurement
from demur.editing.ensembles import Ensemble, cached_ensemble
from demur.editing.registry import edit
from demur.errors import UsageError
from demur.files import atomic_write, hash_json, writable_cache
from demur.intervals import bootstrap_mean

if TYPE_CHECKING:
    from demur.audits.classifiers.measured import UnlearnSplits
    from demur.audits.roles import Progress
    from demur.data.labelled import Labelled
    from demur.models.classifier import Classifier

__all__ = ["Populations", "evaluate_populations", "train_populations"]

_VERSION = 1
_SETS = ("forget", "retain", "test")
_APART = 100_000  # between the seeds of models that saw the forget rows and of those that did not

Margins = Mapping[str, NDArray[np.float64]]
"""Set → (models, rows) margins."""


@dataclass(frozen=True)
class Populations:
    """Margins of three populations on the same rows.

    Attributes:
        unlearned: models that were trained on everything and made to forget.
        oracle: models that were trained on the retain rows.
        second: as many others like those: what two populations differ by that differ in nothing.
    """

    unlearned: Margins
    oracle: Margins
    second: Margins


def train_populations(
    model: Classifier,
    splits: UnlearnSplits,
    method: str | None,
    options: Mapping[str, Any],
    n: int,
    *,
    epochs: int = 12,
    learning_rate: float = 0.05,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> Populations:
    """Train the populations, or find them in the cache: those that saw no forget row serve every method.

    Args:
        model: tells the architecture.
        splits: the rows.
        method: the editing method that is put on each model that was trained on everything; None for none at all.
        options: the method's.
        n: models in each population.
        epochs, learning_rate, batch_size: of their training.
        progress: called with what is being done, how much of it is done, and how much there is.

    Raises:
        UsageError: there are fewer than four models, or the method or an option is unknown.
    """
    if n < 4:
        raise UsageError(f"a population needs four models, not {n}")
    training = {"epochs": epochs, "learning_rate": learning_rate, "batch_size": batch_size}

    def trained(data: Labelled, count: int, seed: int, what: str) -> Ensemble:
        def told(done: int, total: int, note: str = "") -> None:
            if progress is not None:
                progress(what, done, total)

        return cached_ensemble(model, data, count, seed=seed, progress=told, **training)  # type: ignore[arg-type]

    rows = {name: splits.by_name[name] for name in _SETS}
    unseen = trained(splits.retain, 2 * n, 0, "training models without the forget rows")
    both = {name: np.asarray(unseen.margins(data).double()) for name, data in rows.items()}
    oracle, second = ({name: m[part] for name, m in both.items()} for part in (slice(n), slice(n, None)))
    originals = trained(splits.retain.joined(splits.forget), n, _APART, "training models on all rows")
    return Populations(_unlearned(originals, splits, method, options, progress), oracle, second)


def _unlearned(
    originals: Ensemble,
    splits: UnlearnSplits,
    method: str | None,
    options: Mapping[str, Any],
    progress: Progress | None,
) -> Margins:
    """The originals' margins once each has forgotten, kept in the cache."""
    rows = {name: splits.by_name[name] for name in _SETS}
    if method is None:
        return {name: np.asarray(originals.margins(data).double()) for name, data in rows.items()}
    weights = [originals.member(i).weights_hash() for i in (0, len(originals) - 1)]
    what = [_VERSION, method, dict(options), len(originals), weights, [data.hash() for data in rows.values()]]
    file = writable_cache() / "ensembles" / f"margins-{hash_json(what)[:16]}.npz"
    if not file.is_file():
        models = []
        for i in range(len(originals)):
            if progress is not None:
                progress("forgetting in each model", i, len(originals))
            models.append(edit(method, originals.member(i), splits.forget, splits.retain, seed=i, **options))
        together = Ensemble.of(models)
        found = {name: together.margins(data).double().numpy() for name, data in rows.items()}
        with atomic_write(file) as temporary, temporary.open("wb") as handle:
            np.savez(handle, **found)  # type: ignore[arg-type]
    with np.load(file, allow_pickle=False) as kept:
        return {name: kept[name] for name in rows}


def evaluate_populations(found: Populations, seed: int = 0) -> list[Measurement]:
    """U-LiRA on the forget rows and KLoM on all sets; the reference value is that of the second oracles, the floor.

    Args:
        found: the margins.
        seed: of the bootstrap over rows.
    """
    n = len(found.oracle["forget"])
    out = []
    attacked = [u_lira(side["forget"], found.oracle["forget"]) for side in (found.unlearned, found.second)]
    out.append(_mean("u_lira", attacked, seed, f"{n} models a side, half of them judged; 0.5 is ideal"))
    try:
        sides = [u_lira_tpr(side["forget"], found.oracle["forget"]) for side in (found.unlearned, found.second)]
        rows = found.oracle["forget"].shape[1]
        out.append(Measurement("u_lira_tpr", sides[0], n=rows, reference=sides[1], note="at 1 % false alarms"))
    except UsageError as error:
        out.append(Measurement("u_lira_tpr", None, note=str(error)))
    for name in _SETS:
        margins = found.oracle[name]
        both = [kl_of_margins(margins, side[name]) for side in (found.unlearned, found.second)]
        out.append(_mean(f"klom_{name}", both, seed, f"oracle ‖ unlearned, 20 bins, {n} models a side"))
        tails = [float(np.quantile(values, 0.95)) for values in both]
        out.append(Measurement(f"klom_{name}_p95", tails[0], n=margins.shape[1], reference=tails[1]))
    return out


def _mean(name: str, sides: list[NDArray[np.float64]], seed: int, note: str) -> Measurement:
    own, floor = sides
    low, high = bootstrap_mean(own, seed=seed) if len(own) > 1 else (None, None)
    method = "none" if low is None else "bootstrap"
    return Measurement(name, float(own.mean()), low, high, len(own), "reference", method, float(floor.mean()), note)
