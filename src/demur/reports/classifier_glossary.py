"""What the metrics of the suite for classifiers are."""

from __future__ import annotations

from demur.runs import Better

__all__ = ["describe_classifier"]

_WILSON = "Wilson, over rows."
_ROWS = "bootstrap over rows; rows of both models are drawn together."
_NONE = "none."
_BESIDE = "Beside the retrained model"
_ATTACKS, _SHARES, _MANY = "Membership inference", "Accuracy", "Many models"
_SETS = {"forget": "forget rows", "retain": "retain rows", "test": "test rows"}

_EXACT = "exact (Clopper–Pearson)."

_METRICS: dict[str, tuple[str, str, Better, str, str]] = {
    "accuracy_forget": ("Forget rows", _SHARES, "reference", _EXACT, "Share of the forget rows that come out right."),
    "accuracy_retain": ("Retain rows", _SHARES, "higher", _EXACT, "Share of the retain rows that come out right."),
    "accuracy_test": (
        "Test rows",
        _SHARES,
        "higher",
        _EXACT,
        "Share of the test rows that come out right; where whole classes are forgotten, of those of the other classes.",
    ),
    "accuracy_test_of_forgotten": (
        "Test rows of forgotten classes",
        _SHARES,
        "reference",
        _EXACT,
        "Share of the test rows of forgotten classes that come out right.",
    ),
    "unlearning_accuracy": ("UA", _SHARES, "reference", _WILSON, "Share of the forget rows that come out wrong."),
    "retain_accuracy": ("RA", _SHARES, "reference", _WILSON, "Share of the retain rows that come out right."),
    "test_accuracy": (
        "TA",
        _SHARES,
        "reference",
        _WILSON,
        "Share of the test rows that come out right; where whole classes are forgotten, of those of the other classes.",
    ),
    "unlearning_accuracy_test": (
        "UA, test",
        _SHARES,
        "reference",
        _WILSON,
        "Share of the test rows of forgotten classes that come out wrong.",
    ),
    "mia_nonmember_rate": (
        "MIA on confidence, non-members",
        _ATTACKS,
        "reference",
        _WILSON,
        "Share of the forget rows that a support vector machine takes for never seen, by the true label's probability; "
        "fitted on as many retain as test rows of the same model.",
    ),
    "mia_member_rate": (
        "MIA on entropy, members",
        _ATTACKS,
        "reference",
        _WILSON,
        "Share of the forget rows that a logistic regression on the outputs' entropy takes for trained on. Far below "
        "the retrained model's value the rows stand out as forgotten.",
    ),
    "mia_loss_accuracy": (
        "MIA on loss, accuracy",
        _ATTACKS,
        "reference",
        _NONE,
        "Accuracy with which a logistic regression tells losses on forget rows from those on test rows of the same "
        "classes; mean over five overlapping splits. 0.5 is chance.",
    ),
    "mia_threshold_member_rate": (
        "MIA with a threshold a class, members",
        _ATTACKS,
        "reference",
        _WILSON,
        "Share of the forget rows above their class's best threshold on the true label's probability, found on retain "
        "rows and half of the test rows.",
    ),
    "zero_retrain_forgetting": (
        "ZRF",
        "Behaviour",
        "reference",
        "bootstrap over forget rows.",
        "1 less the mean Jensen–Shannon divergence to an untrained network on the forget rows. Says something as a "
        "difference to the retrained model's only.",
    ),
    "relearn_steps": (
        "Relearning, steps",
        "Relearning",
        "reference",
        _NONE,
        "Steps of training on all training rows until nine tenths of the accuracy before are back on the forget rows.",
    ),
    "anamnesis_index": (
        "AIN",
        "Relearning",
        "reference",
        _NONE,
        "Those steps divided by the retrained model's. 1 is ideal; well below, the model holds what it does not say.",
    ),
    "unlearning_seconds": ("Seconds", "Cost", "lower", _NONE, "What the method alone took."),
    "average_gap": (
        "Average gap",
        _BESIDE,
        "lower",
        _ROWS,
        "Mean distance to the retrained model in UA, RA, TA and the attack on confidence.",
    ),
    "tug_of_war": ("ToW", _BESIDE, "higher", _ROWS, "Product of 1 less the gap in accuracy on forget, retain, test."),
    "tug_of_war_mia": ("ToW-MIA", _BESIDE, "higher", _ROWS, "The same with the attack on confidence for forget rows."),
    "activation_distance": (
        "Activation distance",
        _BESIDE,
        "lower",
        "bootstrap over forget rows.",
        "Mean Euclidean distance of the two models' probabilities on the forget rows.",
    ),
    "u_lira": (
        "U-LiRA",
        _MANY,
        "reference",
        "bootstrap over forget rows.",
        "Accuracy with which models that unlearned a row are told from models that never saw it, by a normal fit of "
        "its margins under half of either; 0.5 is ideal.",
    ),
    "u_lira_tpr": (
        "U-LiRA, found at 1 % false alarms",
        _MANY,
        "reference",
        _NONE,
        "Share of the unlearned models' rows that the same attack finds when one in a hundred others may be accused.",
    ),
}


def describe_classifier(metric: str) -> tuple[str, str, str, Better, str]:
    """Label, group, definition, direction and interval of a metric of the suite."""
    if metric in _METRICS:
        label, group, better, interval, definition = _METRICS[metric]
        return label, group, definition, better, interval
    for rows, words in _SETS.items():
        if metric == f"agreement_{rows}":
            definition = f"Share of the {words} for which both models name the same class."
            return f"Agreement, {words}", _BESIDE, definition, "higher", _WILSON
        if metric == f"output_kl_{rows}":
            definition = f"Mean KL(retrained ‖ model) of the probabilities on the {words}, in nats."
            return f"Output KL, {words}", _BESIDE, definition, "lower", "bootstrap over rows."
        if metric == f"klom_{rows}":
            definition = (
                f"KLoM: mean KL divergence over the {words} between the margins of models that never saw the forget "
                "rows and of unlearned ones, in nats. Two populations that never saw them are not 0 apart either."
            )
            return f"KLoM, {words}", _MANY, definition, "reference", "bootstrap over rows."
        if metric == f"klom_{rows}_p95":
            definition = f"The 95th percentile of the divergence over the {words}."
            return f"KLoM, {words}, 95th percentile", _MANY, definition, "reference", _NONE
    return metric.replace("_", " "), "Other", "", "none", ""
