"""What the numbers of the corrective and the worst-case suite are."""

from __future__ import annotations

from demur.runs import Better

__all__ = ["describe_corrective", "describe_worst_case"]

_EXACT = "exact (Clopper–Pearson)."
_DRAWS = "exact (Clopper–Pearson); of random sets bootstrap over the draws."
_ROWS = "bootstrap over rows; of random sets over the draws."

_CORRECTIVE: dict[str, tuple[str, str, Better]] = {
    "corrected_accuracy": (
        "Corrected accuracy",
        "Accuracy on test rows as the manipulation shows them, by their true labels: pictures with the patch on, or "
        "rows of the two classes that were exchanged.",
        "higher",
    ),
    "corrected_without_target": (
        "Corrected accuracy without the target",
        "The same without rows whose true class is the patch's target: these are called so with and without an attack.",
        "higher",
    ),
    "attack_success": (
        "Attack success",
        "Share of these test rows that are called what the manipulation wants them called.",
        "lower",
    ),
    "retained_accuracy": (
        "Retained accuracy",
        "Accuracy on test rows without the patch, or of the other classes.",
        "higher",
    ),
    "delete_error": (
        "Delete error",
        "Share of the bad rows that were found and are labelled wrongly that the model still gives their wrong label.",
        "lower",
    ),
    "identified_corrected": (
        "Rows found, corrected",
        "Share of the bad rows that were found that the model gives their true label.",
        "higher",
    ),
    "unidentified_corrected": (
        "Rows not found, corrected",
        "Share of the bad rows that were not found that the model gives their true label.",
        "higher",
    ),
}

_WORST_CASE: dict[str, tuple[str, str, Better, str]] = {
    "unlearning_accuracy": (
        "Rows got wrong",
        "Share of the forget set that a model retrained without it gets wrong. Near 0: the set could be guessed from "
        "the rest, so that forgetting it leaves no trace.",
        "none",
        _DRAWS,
    ),
    "loss": ("Loss", "Mean cross entropy of the retrained model on the forget set, in nats.", "none", _ROWS),
    "mia_nonmember_rate": (
        "Taken for never seen",
        "Share of the forget set that an attack on the retrained model's confidence takes for rows it never saw.",
        "none",
        _DRAWS,
    ),
    "test_accuracy": ("Test accuracy", "Accuracy of the retrained model on test rows.", "higher", _DRAWS),
}
_SETS = {
    "worst": "hardest to forget",
    "easiest": "easiest to forget",
    "ranking": "lowest loss before",
    "random": "random",
}


def describe_corrective(metric: str) -> tuple[str, str, str, Better, str]:
    """Label, group, definition, direction and interval of a metric `NAME:METHOD@RATIO` of the corrective suite."""
    name, _, place = metric.partition(":")
    method, _, ratio = place.rpartition("@")
    if name not in _CORRECTIVE or not method:
        return metric.replace("_", " "), "Other", "", "none", _EXACT
    group, definition, better = _CORRECTIVE[name]
    found = "as trained" if method == "original" else f"{method}, {float(ratio):.0%} found"
    return found, group, definition, better, _EXACT


def describe_worst_case(metric: str) -> tuple[str, str, str, Better, str]:
    """Label, group, definition, direction and interval of a metric `NAME:SET` of the worst-case suite."""
    name, _, which = metric.partition(":")
    if name not in _WORST_CASE:
        return metric.replace("_", " "), "Other", "", "none", _EXACT
    group, definition, better, interval = _WORST_CASE[name]
    return _SETS.get(which, which), group, definition, better, interval
