"""What the numbers of the coverage suite are."""

from __future__ import annotations

from demur.runs import Better

__all__ = ["describe_coverage"]

_EXACT = "exact (Clopper–Pearson)."
_BOOTSTRAP = "bootstrap over questions: the 2.5th and 97.5th percentile of the resampled value."
_PASSES = f"{_BOOTSTRAP[:-1]}; exact where it is 0 or 1 for every question."
_GREEDY = "Greedy answers"


def describe_coverage(metric: str) -> tuple[str, str, str, Better, str]:
    """Label, group, definition, direction and interval of a metric of the suite."""
    if metric == "greedy_accuracy":
        return "Greedy answers right", _GREEDY, "Share of questions whose greedy answer is right.", "higher", _EXACT
    if metric == "greedy_confidence":
        told = "Mean probability, from first token to end of text, that the model gives its greedy answer."
        return "Greedy answers' probability", _GREEDY, told, "none", _BOOTSTRAP
    if (tries := metric.removeprefix("pass_at_")) != metric:
        definition = (
            "Chance that one of k answers sampled at temperature 1 is right, estimated without bias from all samples. "
            "With growing confidence it rises for one answer and falls for many."
        )
        return f"pass@{tries}", "One of k answers right", definition, "higher", _PASSES
    return metric.replace("_", " "), "Other", "", "none", _BOOTSTRAP
