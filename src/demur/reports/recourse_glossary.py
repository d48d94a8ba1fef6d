"""What the numbers of recourse under deletions are."""

from __future__ import annotations

from demur.runs import Better

__all__ = ["describe_recourse"]

_PEOPLE = "bootstrap over people."
_PLAIN = "_plain"
_METRICS: dict[str, tuple[str, str, Better]] = {
    "recourse_cost": (
        "Cost",
        "Mean Euclidean length of the change that people are told to make, in min-max units: a number's whole range is "
        "1, another category is 1 or √2.",
        "lower",
    ),
    "recourse_valid": (
        "Found",
        "Share of the people for whom a change was found that holds in the worst case, and after a refit where the "
        "margin was sought.",
        "higher",
    ),
    "recourse_random": (
        "Accepted after random deletions",
        "Share of the models, refitted without random rows, that accept the changed person.",
        "higher",
    ),
    "recourse_worst": (
        "Accepted after the worst deletions",
        "Share of the people whom the model accepts after a refit without the rows whose loss is predicted to hurt "
        "them most.",
        "higher",
    ),
}


def describe_recourse(metric: str) -> tuple[str, str, str, Better, str]:
    """Label, group, definition, direction and interval of a number that `demur protect recourse` writes."""
    name = metric.removesuffix(_PLAIN)
    if name not in _METRICS:
        return metric.replace("_", " "), "Other", "", "none", ""
    label, definition, better = _METRICS[name]
    if metric.endswith(_PLAIN):
        return (
            f"{label}, plain",
            "Without deletions in mind",
            f"The same of plain counterfactuals. {definition}",
            better,
            _PEOPLE,
        )
    return label, "Recourse", definition, better, _PEOPLE
