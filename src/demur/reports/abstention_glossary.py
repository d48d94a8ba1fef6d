"""What the numbers of the abstention suite are."""

from __future__ import annotations

from demur.runs import Better

__all__ = ["describe_abstention"]

_EXACT = "exact (Clopper–Pearson)."
_BOOTSTRAP = "bootstrap over questions: the 2.5th and 97.5th percentile of the resampled value."
_ANSWERS, _RANKING, _CALIBRATION, _RISK = "Answers", "Ranking by confidence", "Calibration", "Risk and coverage"
_MEASURES: dict[str, tuple[str, str, str, Better, str]] = {
    "accuracy": ("Accuracy", _ANSWERS, "Share of all questions that are answered correctly.", "higher", _EXACT),
    "answer_rate": (
        "Answer rate",
        _ANSWERS,
        "Share of questions that the model answers willingly: it does not say that it does not know, and where it is "
        "asked it calls itself sure.",
        "none",
        _EXACT,
    ),
    "willing_accuracy": (
        "Accuracy when willing",
        _ANSWERS,
        "Share of the willing answers that are correct.",
        "higher",
        _EXACT,
    ),
    "abstention_known": (
        "Abstains on the known",
        _ANSWERS,
        "Share of the questions whose answers the model knew that it does not answer willingly.",
        "lower",
        _EXACT,
    ),
    "abstention_unknown": (
        "Abstains on the unknown",
        _ANSWERS,
        "Share of the questions whose answers the model did not know that it does not answer willingly.",
        "higher",
        _EXACT,
    ),
    "abstention_gap": (
        "Abstention gap",
        _ANSWERS,
        "Abstention on the unknown less abstention on the known. 0: it abstains blindly.",
        "higher",
        _BOOTSTRAP,
    ),
    "sure_gap": (
        "Sure gap",
        _ANSWERS,
        "How much oftener the model calls itself sure of its correct answers than of its wrong ones.",
        "higher",
        _BOOTSTRAP,
    ),
}
_CONFIDENCES = {
    "predict_conf": ("own words", "the geometric mean of the probabilities of the answer's tokens"),
    "sure_prob": ("sure", "p(sure) ÷ (p(sure) + p(unsure)) when asked whether it is sure"),
    "combined": ("both", "the mean of the probability of its words and of that of “sure”"),
}
_SCORES: dict[str, tuple[str, str, str, Better]] = {
    "ap": (
        "Average precision",
        _RANKING,
        "Average precision of correct answers ranked by confidence, which is {}. A confidence that says nothing gives "
        "the accuracy, so compare it beside the accuracy.",
        "higher",
    ),
    "ece": (
        "Calibration error",
        _CALIBRATION,
        "Mean distance, over bins of equal width weighted by their answers, of accuracy from confidence, which is {}. "
        "Chance keeps it above 0 for small sets.",
        "lower",
    ),
    "aurc": (
        "Area under risk–coverage",
        _RISK,
        "Share of wrong answers among the most confident, averaged over all shares answered; confidence is {}. One "
        "that says nothing gives the share of wrong answers.",
        "lower",
    ),
}


def describe_abstention(metric: str) -> tuple[str, str, str, Better, str]:
    """Label, group, definition, direction and interval of a metric of the suite, `MEASURE` or `MEASURE:DOMAIN`."""
    name, _, domain = metric.partition(":")
    score, _, confidence = name.partition("_")
    if score in _SCORES and confidence in _CONFIDENCES:
        (label, group, definition, better), (short, meant) = _SCORES[score], _CONFIDENCES[confidence]
        found = f"{label}, {short}", group, definition.format(meant), better, _BOOTSTRAP
    elif name in _MEASURES:
        found = _MEASURES[name]
    else:
        return metric.replace("_", " "), "Other", "", "none", _BOOTSTRAP
    label, group, definition, better, interval = found
    return label, f"{domain.replace('_', ' ')}: {group.lower()}" if domain else group, definition, better, interval
