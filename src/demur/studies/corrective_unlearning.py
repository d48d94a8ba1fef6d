"""Corrective unlearning (arXiv 2402.14015): forgetting the bad rows that were found does not undo all of them.

Digits with a bright patch that are all called 0, or threes and eights exchanged; a share of them is found, and every
method gets these and the rest, among which the others still teach what is to be undone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from demur.audits.classifiers.corrective import CorrectiveBenchmark, dampened, edited
from demur.data.labelled_sources import read_labelled
from demur.data.manipulations import BackdoorPatch, InterclassSwap
from demur.lab.digits import trained_resnet
from demur.studies.registry import Progress, study
from demur.studies.results import Claim

if TYPE_CHECKING:
    import pandas as pd

    from demur.audits.classifiers.corrective import Candidates
    from demur.data.labelled import Labelled
    from demur.data.manipulations import Manipulation
    from demur.models.classifier import Classifier

MANIPULATED, VALIDATION = 100, 200
RATIOS = (0.1, 0.5, 0.8, 1.0)
PATCH, SWAPPED = 2, (3, 8)
EPOCHS = 12


def _retrained(
    model: Classifier, forget: Labelled, retain: Labelled, seed: int
) -> Iterator[tuple[Mapping[str, Any], Classifier]]:
    """Exact unlearning of what was found, as the original was trained."""
    yield {}, trained_resnet(retain, seed, EPOCHS)


METHODS: dict[str, Candidates] = {
    "retrain": _retrained,
    "ft": edited("ft", {"epochs": 3, "learning_rate": 0.02}),
    "ssd": dampened(),
    "scrub": edited("scrub", *({"alpha": a, "epochs": 5, "learning_rate": 0.01} for a in (0.01, 0.1, 1.0))),
    "bad-teacher": edited("bad-teacher", *({"learning_rate": rate} for rate in (1e-4, 1e-3))),
    "cf-k": edited("cf-k", {"k": 1, "epochs": 3, "learning_rate": 0.02}),
    "eu-k": edited("eu-k", {"k": 1}),
}


def measure(manipulation: Manipulation, seed: int, progress: Progress) -> dict[str, float]:
    """Every number of the benchmark, by method, ratio and metric."""
    data, test = (read_labelled(f"digits:{part}", seed=seed) for part in ("train", "test"))
    benchmark = CorrectiveBenchmark(
        data,
        test.subset(range(VALIDATION, len(test))),
        test.subset(range(VALIDATION)),
        manipulation,
        MANIPULATED,
        lambda rows, seed: trained_resnet(rows, seed, EPOCHS),
        METHODS,
        RATIOS,
        seed,
    )
    table = benchmark.run(progress)
    return {_name(r.method, r.ratio, r.metric): r.value for r in table.itertuples()}


def _name(method: Any, ratio: Any, metric: Any) -> str:
    return f"{method}@{ratio:g} {metric}"


@study("corrective-unlearning", paper="2402.14015", minutes=1, seeds=(1, 2, 3), part="patch")
def patch(seed: int, progress: Progress) -> dict[str, float]:
    """A patch of 2 × 2 pixels on a hundred digits that are called 0, found in part."""
    return measure(BackdoorPatch(PATCH, value=1.0), seed, progress)


@patch.claims
def patch_claims(m: pd.DataFrame) -> Iterator[Claim]:
    """The paper's findings on poisoned rows."""

    def corrected(method: str, ratio: float) -> pd.Series:
        return m[_name(method, ratio, "corrected_without_target")]

    def beside(ratio: float, *left_out: str) -> dict[str, pd.Series]:
        return {name: corrected(name, ratio) for name in METHODS if name not in left_out}

    half = RATIOS[1]
    yield Claim(
        text="The patch works on the model as it was trained (attack success on digits other than 0)",
        measured=m[_name("original", 0, "attack_success")],
        threshold=">= 0.95",
        baselines={"its accuracy without the patch": m[_name("original", 0, "retained_accuracy")]},
    )
    yield Claim(
        text="Retraining without the half that was found does not undo it (accuracy on patched digits)",
        measured=corrected("retrain", half),
        threshold="<= 0.2",
        baselines={"a tenth found": corrected("retrain", RATIOS[0]), "four fifths": corrected("retrain", RATIOS[2])},
    )
    yield Claim(
        text="Retraining without all of them does",
        measured=corrected("retrain", 1),
        threshold=">= 0.88",
        baselines=beside(1, "retrain"),
    )
    yield Claim(
        text="Fine-tuning on the others does not, though all were found",
        measured=corrected("ft", 1),
        threshold="<= 0.15",
        baselines={"retrain": corrected("retrain", 1), "cf-k": corrected("cf-k", 1)},
    )
    yield Claim(
        text="With half of them found, dampening undoes more than retraining (difference)",
        measured=corrected("ssd", half) - corrected("retrain", half),
        threshold=">= 0.2",
        baselines={**beside(half), "ssd, a tenth found": corrected("ssd", RATIOS[0])},
    )
    yield Claim(
        text="and keeps its accuracy without the patch",
        measured=m[_name("ssd", half, "retained_accuracy")],
        threshold=">= 0.85",
        baselines={name: m[_name(name, half, "retained_accuracy")] for name in METHODS if name != "ssd"},
    )


@patch.part("exchanged classes", minutes=1)
def exchanged(seed: int, progress: Progress) -> dict[str, float]:
    """Fifty threes called 8 and fifty eights called 3, found in part."""
    return measure(InterclassSwap(*SWAPPED), seed, progress)


@exchanged.claims
def exchanged_claims(m: pd.DataFrame) -> Iterator[Claim]:
    """What an exchange of labels does; no method is claimed to be best at it."""

    def row(ratio: float, methods: Sequence[str] = tuple(METHODS)) -> dict[str, pd.Series]:
        return {f"{name}, {ratio:.0%} found": m[_name(name, ratio, "corrected_accuracy")] for name in methods}

    yield Claim(
        text="Retraining without all exchanged rows tells threes from eights (accuracy on the two classes)",
        measured=m[_name("retrain", 1, "corrected_accuracy")],
        threshold=">= 0.88",
        kind="ours",
        baselines={
            "as trained": m[_name("original", 0, "corrected_accuracy")],
            **row(RATIOS[1]),
            **row(1, [name for name in METHODS if name != "retrain"]),
        },
    )
