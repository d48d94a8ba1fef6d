"""What the numbers of learning task after task are."""

from __future__ import annotations

from demur.runs import Better

__all__ = ["describe_continual"]

_NONE = "none."
_SCORES: dict[str, tuple[str, str, Better]] = {
    "accuracy": (
        "Accuracy at the end",
        "Mean over tasks of the accuracy after the last one, the task known.",
        "higher",
    ),
    "learned": ("Accuracy when learned", "Mean over tasks of the accuracy right after each was learned.", "higher"),
    "forgetting": ("Forgetting", "Mean over tasks of the best accuracy ever less the last.", "lower"),
    "backward_transfer": (
        "Backward transfer",
        "Mean over all tasks but the last of the last accuracy less that right after learning: below 0 it was lost.",
        "higher",
    ),
    "accuracy_all_classes": (
        "Accuracy among all classes",
        "Mean over tasks of the accuracy after the last one where any class seen so far may be the answer.",
        "higher",
    ),
}


def describe_continual(metric: str) -> tuple[str, str, str, Better, str]:
    """Label, group, definition, direction and interval of a score, or of `accuracy:task S after T`."""
    if metric in _SCORES:
        label, definition, better = _SCORES[metric]
        return label, "Summary", definition, better, _NONE
    if metric.startswith("accuracy:"):
        label = metric.partition(":")[2]
        return (
            f"{label[:1].upper()}{label[1:]}",
            "Task by task",
            "Share of a task's test rows told right among its own classes, after a later task was learned.",
            "higher",
            "exact (Clopper–Pearson).",
        )
    return metric.replace("_", " "), "Other", "", "none", _NONE
