"""Are we truly forgetting? (arXiv 2503.06991): what looks forgotten by the answers may stand in the features as before.

Digits without 3, 5 and 8, which look alike: a small residual network, its retrained twin, a second one of another seed,
and methods between. Beside the methods stands one that forgets nothing and only hides the three classes' outputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from demur.audits.classifiers import RepresentationAudit, UnlearnSplits
from demur.data.labelled import Labelled, split_off
from demur.data.labelled_sources import read_labelled
from demur.editing import edit
from demur.lab.digits import trained_resnet
from demur.studies.registry import Progress, study
from demur.studies.results import Claim

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

FORGET = "class:3,5,8"
EPOCHS = 12
# Added to a seed: models that begin with the same weights look more alike, so the three have seeds of their own.
FIRST, SECOND = 100, 200
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "head mask": ("head-mask", {}),
    "pseudo-labels": ("pseudo-label", {}),
    "random labels": ("rl", {}),
    "gradient ascent": ("ga", {"epochs": 5, "learning_rate": 0.005}),
    "fine-tuning": ("ft", {"epochs": 5, "learning_rate": 0.01}),
}
MODELS = ("original", "retrain", "retrain2", *METHODS)


def digits(part: str) -> Labelled:
    """Handwritten digits."""
    return read_labelled(f"digits:{part}")


def uncentred_cka(x: NDArray[Any], y: NDArray[Any]) -> float:
    """A slip that must show: alignment of kernels that nobody centred."""
    both, own, other = (float(np.square(a.T @ b).sum()) for a, b in ((x, y), (x, x), (y, y)))
    return both / float(np.sqrt(own * other))


@study("truly-forgetting", paper="2503.06991", minutes=0.7, seeds=(1, 2, 3))
def mutually_similar_digits(seed: int, progress: Progress) -> dict[str, float]:
    """Answers and features of seven models beside the retrained one."""
    data = digits("train")
    split = split_off(data, FORGET)
    steps = 3 + len(METHODS)
    progress(0, steps, "training")
    original = trained_resnet(data, seed, EPOCHS)
    progress(1, steps, "training")
    models = {
        "original": original,
        "retrain": trained_resnet(split.retain, seed + FIRST, EPOCHS),
        "retrain2": trained_resnet(split.retain, seed + SECOND, EPOCHS),
    }
    for done, (label, (method, options)) in enumerate(METHODS.items(), 3):
        progress(done, steps, label)
        models[label] = edit(method, original, split.forget, split.retain, seed=seed, **options)
    splits = UnlearnSplits.of(split, digits("test"))
    audit = RepresentationAudit(splits, models["retrain"], original)
    turned = RepresentationAudit(splits, original)
    seen = models["retrain"].features(data).numpy()
    measured = {}
    for label in MODELS:
        found = audit.run(models[label])
        measured |= {
            f"{label} agl": found.agl,
            f"{label} agr": found.agr,
            f"{label} h_lr": found.h_lr,
            f"{label} cka": found.cka_retrained["all"],
            f"{label} cka forget": found.cka_retrained["forget"],
            f"{label} cka original": found.cka_original["all"],
            f"{label} knn forget": found.knn["forget"],
            f"{label} knn retain": found.knn["retain"],
            f"{label} uncentred": uncentred_cka(models[label].features(data).numpy(), seen),
            f"{label} turned agr": turned.run(models[label]).agr,
        }
    return measured


@mutually_similar_digits.claims
def claims(m: pd.DataFrame) -> Iterator[Claim]:
    """What the paper says of evaluations by answers, and that a model that forgot nothing passes them."""

    def of(what: str, *models: str) -> dict[str, pd.Series]:
        return {model: m[f"{model} {what}"] for model in models or MODELS}

    agl, knn, cka = of("agl"), of("knn forget"), of("cka")
    yield Claim(
        text="Hiding the forgotten classes' outputs passes every measure of answers (AGL)",
        measured=agl["head mask"],
        threshold=">= 0.97",
        baselines=agl,
    )
    yield Claim(
        text="while its features tell the forgotten classes apart as the retrained model's cannot (k-NN, difference)",
        measured=knn["head mask"] - knn["retrain"],
        threshold=">= 0.05",
        baselines=knn,
    )
    yield Claim(
        text="for they are the original's (CKA with the original)",
        measured=m["head mask cka original"],
        threshold=">= 0.9999",
        baselines=of("cka original"),
    )
    yield Claim(
        text="A second retrained model is nearer to the retrained one than they are (CKA, difference)",
        measured=cka["retrain2"] - cka["head mask"],
        threshold=">= 0.05",
        baselines=cka,
    )
    yield Claim(
        text="Gradient ascent does not answer like the retrained model (AGL)",
        measured=agl["gradient ascent"],
        threshold="<= 0.4",
        baselines=agl,
    )
    kept = of("knn retain")
    yield Claim(
        text="and harms the features of what is kept (k-NN on kept classes, retrained model's less its own)",
        measured=kept["retrain"] - kept["gradient ascent"],
        threshold=">= 0.03",
        baselines=kept,
    )
    yield Claim(
        text="Features tell what answers do not: a second retrained model is above hidden outputs (AGR, difference)",
        measured=m["retrain2 agr"] - m["head mask agr"],
        threshold="> 0",
        kind="ours",
        baselines=of("agr"),
    )
    plain = of("uncentred")
    yield Claim(
        text="Without centring CKA is nearer to 1 for every pair (smallest rise over all models but the retrained one)",
        measured=_least([plain[model] - cka[model] for model in MODELS if model != "retrain"]),
        threshold="> 0",
        kind="ours",
        baselines=plain,
    )
    yield Claim(
        text="and hides part of what tells a retrained model from hidden outputs (share of the lead that is left)",
        measured=(plain["retrain2"] - plain["head mask"]) / (cka["retrain2"] - cka["head mask"]),
        threshold="<= 0.75",
        kind="ours",
        baselines={"centred": cka["retrain2"] - cka["head mask"], "not": plain["retrain2"] - plain["head mask"]},
    )
    turned = of("turned agr")
    yield Claim(
        text="With original and retrained exchanged, the hidden outputs would be perfect (AGR)",
        measured=turned["head mask"],
        threshold=">= 0.999",
        kind="ours",
        baselines=turned,
    )


def _least(series: list[pd.Series]) -> pd.Series:
    out = series[0]
    for other in series[1:]:
        out = out.combine(other, min)
    return out
