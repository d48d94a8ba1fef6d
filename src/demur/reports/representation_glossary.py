"""What the numbers of the representation suite are."""

from __future__ import annotations

from demur.runs import Better

__all__ = ["describe_representation"]

_EXACT = "exact (Clopper–Pearson)."
_NONE = "none; a second retrained model shows how far two differ that are as good."
_SUMMARY, _ANSWERS, _ALIKE, _NEIGHBOURS = "Summary", "Answers", "Likeness of features", "What neighbours tell"
_SCORES: dict[str, tuple[str, str]] = {
    "agl": (
        "Answers like the retrained model's (AGL)",
        "Product over all sets of 1 less the distance to the retrained model's accuracy. A model whose forgotten "
        "classes are only hidden has nearly 1.",
    ),
    "agr": (
        "Features like the retrained model's (AGR)",
        "CKA with the retrained model's features times 1 less the distance of the k-NN accuracies, over the forgotten "
        "rows, the kept ones and every downstream set. Our reading of the paper's score: compare it only with numbers "
        "made here.",
    ),
    "h_lr": ("Answers and features (H-LR)", "Harmonic mean of AGL and AGR; 0 where either is."),
}
_TABLES: dict[str, tuple[str, str, str, Better, str]] = {
    "accuracy": ("Accuracy", _ANSWERS, "Share of the rows whose class the model answers.", "reference", _EXACT),
    "cka_retrained": (
        "CKA with the retrained model",
        _ALIKE,
        "Centred kernel alignment of the features before the last layer with the retrained model's. 1 means equal up "
        "to a turn and a scale. Compare it with the second retrained model's and with the original's: a model whose "
        "features never changed has exactly the latter.",
        "higher",
        _NONE,
    ),
    "cka_original": (
        "CKA with the original",
        _ALIKE,
        "The same with the model before. 1 means that nothing happened to the features.",
        "reference",
        _NONE,
    ),
    "cka_layer": (
        "CKA with the retrained model, layer",
        _ALIKE,
        "The same with outputs of a layer, averaged over places, on all training rows.",
        "higher",
        _NONE,
    ),
    "knn": (
        "k-NN accuracy on features",
        _NEIGHBOURS,
        "Share of rows never trained on whose class their nearest neighbours among training rows tell. Above the "
        "retrained model's on forgotten classes, the features still tell them apart; below it on kept ones, they are "
        "damaged.",
        "reference",
        _EXACT,
    ),
}
_SETS = {
    "all": "all training rows",
    "forget": "rows to forget",
    "retain": "rows to keep",
    "test": "test rows",
    "forget_test": "test rows of forgotten classes",
}


def describe_representation(metric: str) -> tuple[str, str, str, Better, str]:
    """Label, group, definition, direction and interval of a metric of the suite, `SCORE` or `MEASURE:SET`."""
    name, _, rows = metric.partition(":")
    if name in _SCORES:
        label, definition = _SCORES[name]
        return label, _SUMMARY, definition, "higher", _NONE
    if name not in _TABLES:
        return metric.replace("_", " "), "Other", "", "none", _NONE
    label, group, definition, better, interval = _TABLES[name]
    return f"{label}: {_SETS.get(rows, rows)}", group, definition, better, interval
