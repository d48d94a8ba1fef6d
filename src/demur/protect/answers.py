"""Recourse from files: people who were turned down get an answer in words, and how long it holds goes on record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from demur.data.tables import TableEncoding, read_table
from demur.errors import UsageError
from demur.files import hash_file
from demur.protect.linear import LinearFit, fit_linear
from demur.protect.recourse import Counterfactual, RobustCounterfactual
from demur.protect.refits import validity
from demur.registry import nearest
from demur.runs import Result, RunFolder

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

__all__ = ["Answers", "RecourseSettings", "recourse_run"]

SUITE = "recourse"
_NETWORK_DAMPING = 1e-3
Told = Callable[[str, int, int], None]


@dataclass(frozen=True)
class RecourseSettings:
    """What `demur protect recourse` is asked.

    Attributes:
        data: table that the model was, or is to be, fitted to.
        target: its column with the decision.
        query: table of the people who ask; the target may be missing.
        favourable: the value of the target that means yes; the last in order by default.
        model: linear, mlp, tree or forest, fitted here; or the folder of a classifier of two classes.
        k: deletions to withstand, a number or a share.
        delta: margin, or "auto".
        immutable: columns that nobody can change.
        ridge: λ of the linear model and of the network; the network's is 3e-3 unless given.
        damping: added to the curvature; networks need some.
        deleted: share of the rows that random deletions take.
        repeats: random deletions to try; 0 tries none.
        seed: of the fit and of the random deletions.
    """

    data: str
    target: str
    query: str
    favourable: str | None = None
    model: str = "linear"
    k: float = 0.005
    delta: float | str = "auto"
    immutable: tuple[str, ...] = ()
    ridge: float | None = None
    damping: float | None = None
    deleted: float = 0.01
    repeats: int = 100
    seed: int = 0


@dataclass(frozen=True)
class Answers:
    """What came out.

    Attributes:
        folder: the run folder.
        sentences: one for each person.
        table: a row for each person who was turned down.
        results: the numbers, as in the folder.
        rows: training rows.
        scaling: the units of the cost.
    """

    folder: RunFolder
    sentences: list[str]
    table: pd.DataFrame
    results: list[Result]
    rows: int
    scaling: str


def recourse_run(settings: RecourseSettings, out: Path, told: Told = lambda what, done, total: None) -> Answers:
    """Fit, explain, refit without rows, and write it down.

    Args:
        settings: what is asked.
        out: run folder.
        told: called with what is being done, how much of it is done, and of how much.

    Raises:
        UsageError: a table, a column, the model or an option does not fit.
    """
    config = {"command": "protect recourse", **asdict(settings), "immutable": list(settings.immutable)}
    RunFolder.check(out, config)
    table, people = read_table(settings.data), read_table(settings.query)
    y = _decisions(table, settings)
    encoding = TableEncoding.of(table.drop(columns=settings.target), settings.data)
    X = encoding.encode(table, settings.data)
    queries = encoding.encode(people, settings.query)
    everyone = np.vstack([X, queries])
    model = _model(settings, X, y)
    robust = RobustCounterfactual(
        model,
        X,
        y,
        k=settings.k,
        delta=settings.delta,  # type: ignore[arg-type]
        damping=_damping(settings, model),
        actionable=encoding.actionable(settings.immutable),
        bounds=(everyone.min(axis=0), everyone.max(axis=0)),
        encoding=encoding,
    )
    plain = replace(robust, k=0, delta=0.0)
    refused = np.flatnonzero(robust.scores(queries) < 0)
    sentences = [f"Row {row + 1} is accepted as it is." for row in range(len(queries))]
    if not len(refused):
        raise UsageError(f"{settings.query}: everybody is accepted as they are; nothing is to be explained")
    asking = queries[refused]
    found = robust.explain_all(asking, lambda done: told("explaining", done, len(asking)))
    baseline = plain.explain_all(asking)
    checks = _checked(robust, found, baseline, settings, told)
    survives = [robust.survives(each.x) for each in found]
    for row, x0, each, many in zip(refused, asking, found, survives, strict=True):
        sentences[row] = _sentence(int(row) + 1, x0, each, many, robust, encoding)
    answers = _table(refused, asking, found, survives, checks, encoding)
    folder = RunFolder.create(out, config)
    results = _results(folder.name, found, baseline, checks, settings.seed)
    folder.write_samples("recourse", answers)
    folder.add_results(results)
    folder.update_state(
        status="finished", hashes={"data": {name: hash_file(getattr(settings, name)) for name in ("data", "query")}}
    )
    folder.log("audit", suite=SUITE, role="run", model=settings.model, seconds=0.0, notes={})
    return Answers(folder, sentences, answers, results, len(X), encoding.scaling)


def _decisions(table: pd.DataFrame, settings: RecourseSettings) -> Array:
    if settings.target not in table:
        hint = nearest(settings.target, list(map(str, table.columns)))
        raise UsageError(f"{settings.data} has no column {settings.target!r}: {hint}")
    values = sorted(table[settings.target].dropna().unique())
    if len(values) != 2 or table[settings.target].isna().any():
        raise UsageError(f"{settings.data}: column {settings.target!r} must hold two values and no empty cell")
    named = {str(value): value for value in values}
    wanted = str(values[-1]) if settings.favourable is None else settings.favourable
    if wanted not in named:
        raise UsageError(f"--favourable {wanted}: column {settings.target!r} holds {' and '.join(named)}")
    return (table[settings.target] == named[wanted]).to_numpy(float)


def _model(settings: RecourseSettings, X: Array, y: Array) -> Any:
    if settings.model == "linear":
        return fit_linear(X, y, 1e-3 if settings.ridge is None else settings.ridge)
    if settings.model == "mlp":
        from demur.protect.network import train_network

        return train_network(X, y, ridge=3e-3 if settings.ridge is None else settings.ridge, seed=settings.seed)
    if settings.model == "tree":
        from sklearn.tree import DecisionTreeClassifier

        return DecisionTreeClassifier(max_depth=4, min_samples_leaf=20, random_state=settings.seed).fit(X, y)
    if settings.model == "forest":
        from sklearn.ensemble import RandomForestClassifier

        return RandomForestClassifier(10, max_depth=4, min_samples_leaf=20, random_state=settings.seed).fit(X, y)
    return _saved(settings, X)


def _saved(settings: RecourseSettings, X: Array) -> Any:
    from demur.models import load_classifier
    from demur.models.linear_classifier import LinearClassifier
    from demur.protect.network import Network

    classifier = load_classifier(settings.model)
    head = classifier.head_layer
    if classifier.classes != 2:
        raise UsageError(f"{settings.model} tells {classifier.classes} classes apart: recourse needs two")
    if settings.favourable is not None:
        raise UsageError("--favourable: a saved model's classes are in the order of their names; leave it out")
    if isinstance(classifier, LinearClassifier) and classifier.fit.kind == "logistic":
        weights, bias = ((part[1] - part[0]).detach().double().numpy() for part in (head.weight, head.bias))
        return LinearFit(weights, float(bias), 1 / (classifier.fit.penalty * len(X)))
    return Network(classifier.module, ridge=settings.ridge or 0.0)


def _damping(settings: RecourseSettings, model: Any) -> float:
    if settings.damping is not None:
        return settings.damping
    return _NETWORK_DAMPING if type(model).__name__ == "Network" else 0.0


def _checked(
    robust: RobustCounterfactual,
    found: list[Counterfactual],
    baseline: list[Counterfactual],
    settings: RecourseSettings,
    told: Told,
) -> dict[str, Array]:
    """For each person the share of refits that accept, robust and plain, under random and under the worst deletions."""
    checks = {}
    for name, given in (("", found), ("_plain", baseline)):
        aimed = [replace(each, worst_points=robust.worst(each.x)[1]) for each in given]
        checks[f"recourse_worst{name}"] = validity(
            aimed,
            robust.refit,
            adversarial=True,
            progress=lambda done, total: told("refitting without the worst rows", done, total),
        ).each
        if settings.repeats:
            checks[f"recourse_random{name}"] = validity(
                given,
                robust.refit,
                fraction=settings.deleted,
                repeats=settings.repeats,
                seed=settings.seed,
                progress=lambda done, total: told("refitting without random rows", done, total),
            ).each
    return checks


def _sentence(
    row: int, x0: Array, found: Counterfactual, survives: int, robust: RobustCounterfactual, encoding: TableEncoding
) -> str:
    changes = [f"{name} from {_value(a)} to {_value(b)}" for name, a, b in encoding.changes(x0, found.x)]
    if found.score < 0 or not changes:
        return f"Row {row} is turned down, and nothing that may change would alter that."
    asked = f"Row {row} is turned down. It would be accepted with {', '.join(changes)} (cost {found.cost:.3f})."
    if not found.valid:
        return f"{asked} That is all that can be promised: deleting {robust.deletions} rows could undo it."
    under = "As long as its splits stay" if robust.keeps_splits else "By estimate"
    promise = f"{asked} {under} this holds whichever {survives} of the {len(robust._X)} training rows are deleted"
    if found.refit_score is None:
        return f"{promise}."
    return f"{promise}; refitted without the {len(found.worst_points)} that matter most, the model accepted it."


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _table(
    refused: NDArray[np.intp],
    asking: Array,
    found: list[Counterfactual],
    survives: list[int],
    checks: dict[str, Array],
    encoding: TableEncoding,
) -> pd.DataFrame:
    import pandas as pd

    rows = [
        {
            "row": int(row) + 1,
            "changes": "; ".join(f"{n}: {_value(a)} → {_value(b)}" for n, a, b in encoding.changes(x0, each.x)),
            "cost": each.cost,
            "score": each.score,
            "worst_score": each.worst_score,
            "delta": each.delta,
            "survives": many,
            "valid": each.valid,
            "worst_rows": [int(r) + 1 for r in each.worst_points],
        }
        for row, x0, each, many in zip(refused, asking, found, survives, strict=True)
    ]
    return pd.DataFrame(rows).assign(**{k: v for k, v in checks.items() if not k.endswith("_plain")})


def _results(
    run: str, found: list[Counterfactual], baseline: list[Counterfactual], checks: dict[str, Array], seed: int
) -> list[Result]:
    values = {
        "recourse_cost": np.array([each.cost for each in found]),
        "recourse_cost_plain": np.array([each.cost for each in baseline]),
        "recourse_valid": np.array([float(each.valid) for each in found]),
        **checks,
    }
    results = []
    for metric, each in values.items():
        draws = each[np.random.default_rng([seed, 23]).integers(len(each), size=(2000, len(each)))].mean(axis=1)
        low, high = np.quantile(draws, [0.025, 0.975])
        better = "lower" if "cost" in metric else "higher"
        results.append(
            Result(run, SUITE, metric, float(each.mean()), float(low), float(high), len(each), better=better, seed=seed)  # type: ignore[arg-type]
        )
    return results
