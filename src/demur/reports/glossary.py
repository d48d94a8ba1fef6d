"""What each metric is: its short name, which way is good, how it is computed and where its interval comes from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from demur.reports.abstention_glossary import describe_abstention
from demur.reports.classifier_glossary import describe_classifier
from demur.reports.continual_glossary import describe_continual
from demur.reports.coverage_glossary import describe_coverage
from demur.reports.forget_sets_glossary import describe_corrective, describe_worst_case
from demur.reports.parity_glossary import describe_parity
from demur.reports.poisoning_glossary import describe_poisoning
from demur.reports.recourse_glossary import describe_recourse
from demur.reports.refusal_glossary import describe_refusal
from demur.reports.removal_glossary import describe_removal
from demur.reports.representation_glossary import describe_representation
from demur.runs import Better

__all__ = ["ARROWS", "GROUPS", "HEADLINE", "SAMPLE_NUMBERS", "Description", "describe"]

Kind = Literal["share", "p", "log10", "percent"]

ARROWS: dict[Better, tuple[str, str]] = {
    "higher": ("↑", "higher is better"),
    "lower": ("↓", "lower is better"),
    "zero": ("→ 0", "nearer to zero is better"),
    "reference": ("≈ gold", "nearer to the gold model is better"),
    "none": ("", "no direction is better in itself"),
}

HEADLINE = (
    "forget_quality",
    "model_utility",
    "forget_probability",
    "forget_rouge",
    "forget_extraction_strength",
    "privleak",
)

GROUPS = (
    "Summary",
    "Forget set",
    "Retain set",
    "Real authors",
    "World facts",
    "Hold-out set",
    "Membership inference",
    "Other",
)

_BOOTSTRAP = "bootstrap over questions: the 2.5th and 97.5th percentile of the resampled value."
_ROWS = "bootstrap over forget rows and hold-out rows."
_FACTS = "bootstrap over facts, the same for all models, and over attack seeds."
_EXACT = "exact (Clopper–Pearson)."
_NO_INTERVAL = "none; a p-value already states the uncertainty of its test."


@dataclass(frozen=True)
class Description:
    """One entry of the glossary.

    Attributes:
        metric: the metric's name in the results.
        label: its name in tables.
        group: the block of the full table it stands in, one of `GROUPS`.
        better: which direction is good, where a result does not say so itself.
        kind: how its values are written.
        definition: what it is.
        interval: where its 95 % interval comes from.
    """

    metric: str
    label: str
    group: str
    better: Better
    kind: Kind
    definition: str
    interval: str = _BOOTSTRAP


_SUMMARY = [
    Description(
        "forget_quality",
        "Forget quality (p)",
        "Summary",
        "higher",
        "p",
        "The p-value of a two-sided Kolmogorov–Smirnov test between this model's truth ratios on the forget set and "
        "the "
        "gold model's. Near 1: the test sees no difference from a model that never saw the forget set. Below 0.05: "
        "it does. "
        "It needs a gold model, and it sees little when there are few questions.",
        _NO_INTERVAL,
    ),
    Description(
        "forget_quality_log10",
        "Forget quality (log10 p)",
        "Summary",
        "higher",
        "log10",
        "The base-10 logarithm of forget quality, because p-values reach 1e-239.",
        _NO_INTERVAL,
    ),
    Description(
        "forget_quality_distance",
        "Forget quality (distance)",
        "Summary",
        "lower",
        "share",
        "The largest gap between the distributions of truth ratios of this model and of the gold model, from 0 (the "
        "same) to 1. Unlike the p-value it does not grow clearer with more questions.",
        "exact, from the Dvoretzky–Kiefer–Wolfowitz bound; on the wide side.",
    ),
    Description(
        "model_utility",
        "Model utility",
        "Summary",
        "higher",
        "share",
        "Harmonic mean of nine numbers: probability, ROUGE and truth ratio, each on the retain set, real authors and "
        "world "
        "facts. If any one of the nine is 0, utility is 0.",
        "bootstrap over questions, each of the three sets resampled on its own.",
    ),
    Description(
        "privleak",
        "Privacy leakage",
        "Membership inference",
        "zero",
        "percent",
        "How far the min-k attack's success on this model lies from its success on the gold model, in percent. "
        "Around 0: as "
        "little is shown as by a model that never saw the rows. Towards −100: the forget rows still look like "
        "training rows. "
        "Far above 0: they look less likely than unseen rows, which gives them away as well. Without a gold model it "
        "is "
        "taken against an AUC of 0.5, which holds only where forget and hold-out rows are exchangeable.",
        _ROWS,
    ),
]

_SETS = {
    "forget": "Forget set",
    "retain": "Retain set",
    "real_authors": "Real authors",
    "world_facts": "World facts",
    "holdout": "Hold-out set",
}

# measure -> label, definition, better on the forget set, better elsewhere
_MEASURES: dict[str, tuple[str, str, Better, Better]] = {
    "probability": (
        "probability",
        "Probability that the model gives to the true answer, per token: exp of minus its mean negative "
        "log-likelihood, "
        "end of answer included.",
        "reference",
        "higher",
    ),
    "rouge": (
        "ROUGE-L recall",
        "Share of the true answer's words that the model's own greedy answer repeats in the same order (ROUGE-L "
        "recall, "
        "with stemming).",
        "reference",
        "higher",
    ),
    "truth_ratio": (
        "truth ratio",
        "Compares wrong answers with a right one: R = geometric mean probability of the perturbed answers ÷ "
        "probability of "
        "the right answer in other words.",
        "reference",
        "higher",
    ),
    "extraction_strength": (
        "extraction strength",
        "Share of the true answer that the model completes without a mistake once it is given the part before: 1 means "
        "that the question alone is enough, 0 that not even the last word comes.",
        "reference",
        "none",
    ),
    "truth_share": (
        "truth share",
        "The right answer's share of the probability that the model gives to the right and the wrong answers together.",
        "reference",
        "higher",
    ),
    "fluency": (
        "fluency",
        "How fluent a scorer finds the model's answers; a collapsed model's are gibberish.",
        "higher",
        "higher",
    ),
    "exact_memorization": (
        "exact memorisation",
        "Share of the true answer's tokens that the model puts first when it is given all tokens before.",
        "reference",
        "none",
    ),
}

_ATTACKS = {
    "loss": "the mean negative log-likelihood of the answer",
    "zlib": "the mean negative log-likelihood divided by the answer's length after zlib compression",
    "min_k": "the mean of the least likely 40 % of the answer's tokens",
    "min_k_plus_plus": "the same as min-k, each token first standardised by the model's own distribution at its place",
    "gradnorm": "the size of the loss gradient for the answer",
    "reference": "the difference between the answer's loss under this model and under the gold model",
}

SAMPLE_NUMBERS: dict[str, tuple[str, str]] = {
    "probability": ("Probability", "Probability of the true answer, per token."),
    "rougeL_recall": ("ROUGE-L", "ROUGE-L recall of the answer against the truth."),
    "rouge1_recall": ("ROUGE-1", "ROUGE-1 recall of the answer against the truth."),
    "extraction_strength": ("Extraction", "Extraction strength."),
    "exact_memorization": ("Exact mem.", "Exact memorisation."),
    "truth_ratio": ("Truth ratio", "Truth ratio R: wrong answers against a right one."),
    "loss": ("Loss", "Mean negative log-likelihood of the true answer, in nats."),
}

_KNOWN = {d.metric: d for d in _SUMMARY}

# Suite → a metric's label, group, definition and direction, and most often its interval.
_SUITES: dict[str, Callable[[str], Any]] = {
    "abstention": describe_abstention,
    "classifier-unlearning": describe_classifier,
    "continual": describe_continual,
    "corrective": describe_corrective,
    "coverage": describe_coverage,
    "forget": describe_classifier,
    "parity": describe_parity,
    "poisoning": describe_poisoning,
    "recourse": describe_recourse,
    "refusal": describe_refusal,
    "removal": describe_removal,
    "representation": describe_representation,
    "worst-case": describe_worst_case,
}


def _interval(suite: str, metric: str) -> str:
    """The interval of metrics whose suite does not say it one by one."""
    if suite == "removal":
        return _FACTS
    return _BOOTSTRAP if metric.endswith("_rouge") else _EXACT


def describe(metric: str) -> Description:
    """The glossary entry of a metric; one that is not known gets its own name and no definition.

    Args:
        metric: name as in `Result.metric`; `suite/metric` for suites other than "tofu".
    """
    if metric in _KNOWN:
        return _KNOWN[metric]
    if metric.startswith("mia_"):
        attack = metric.removeprefix("mia_")
        if attack in _ATTACKS:
            return _attack(metric, attack)
    for prefix, group in _SETS.items():
        measure = metric.removeprefix(prefix + "_")
        if metric.startswith(prefix + "_") and measure in _MEASURES:
            return _measure(metric, prefix, group, measure)
    suite, _, name = metric.partition("/")
    if name and suite in _SUITES:
        label, group, definition, better, *told = _SUITES[suite](name)
        interval = told[0] if told else _interval(suite, name)
        return Description(metric, label, group, better, "share", definition, interval)
    if "/" in metric and metric.startswith(("muse", "wmdp")):
        return _texts_and_choices(metric)
    if metric.removeprefix("safe-eraser/") in _SAFETY:
        label, group, better, definition = _SAFETY[metric.removeprefix("safe-eraser/")]
        return Description(metric, label, group, better, "share", definition)
    if metric.removeprefix("honesty/") in _HONESTY:
        label, better, definition = _HONESTY[metric.removeprefix("honesty/")]
        group = "Summary"
        exact = metric.endswith(("rate", "poor", "excellent"))
        return Description(metric, label, group, better, "share", definition, _EXACT if exact else _BOOTSTRAP)
    return Description(metric, metric.replace("_", " "), "Other", "none", "share", "")


_VERBATIM = {
    "verbmem": ("verbatim memory", "ROUGE-L F1 between a text's second half and what the model makes of its first."),
    "verbmem_extraction_strength": (
        "extraction strength of texts",
        "Share of a text's second half that the model completes without an error, given the rest.",
    ),
    "verbmem_exact_memorization": (
        "exact memorisation of texts",
        "Share of the tokens of a text's second half that the model ranks first, given those before.",
    ),
    "verbmem_probability": ("probability of texts", "Probability of a text's second half, per token."),
    "knowmem": (
        "knowledge memory",
        "ROUGE-L F1 of answers to questions about the texts, after examples of questions with answers.",
    ),
}
_TOLD = "Share of the answers to unsafe questions beside their unsafe picture that"
_SAFETY: dict[str, tuple[str, str, Better, str]] = {
    "asr_efficacy": ("Attack success, as trained", "Forget set", "lower", f"{_TOLD} are judged unsafe."),
    "asr_generality": ("Attack success, other words", "Forget set", "lower", f"{_TOLD} are judged unsafe, reworded."),
    "rr_efficacy": ("Refusals, as trained", "Forget set", "higher", f"{_TOLD} begin with a refusal."),
    "rr_generality": ("Refusals, other words", "Forget set", "higher", f"{_TOLD} begin with a refusal, reworded."),
    "sarr": (
        "Safe answer refusal rate",
        "Retain set",
        "lower",
        "Share of the unsafe questions beside a harmless picture that are refused, or answered with nothing that means "
        "anything. Read it with attack success: a model that never refuses scores 0.",
    ),
    **{
        f"harmless_rouge_{name}": (
            f"Harmless questions, ROUGE-L {name}",
            "Retain set",
            "higher",
            f"ROUGE-L {name} of the answers to harmless questions against the true ones.",
        )
        for name in ("recall", "precision", "f1")
    },
}
_HONESTY: dict[str, tuple[str, Better, str]] = {
    "honesty_rate": (
        "Honesty rate",
        "higher",
        "Share of the judged answers that admit the limit, or correct the mistake, that an honest assistant would.",
    ),
    "h2_score": ("H² (mean)", "higher", "Honest helpfulness of the answers, from 1 to 10, as a judge scores it."),
    "h2_poor": ("H² poor", "lower", "Share of the scored answers with an H² below 4."),
    "h2_excellent": ("H² excellent", "higher", "Share of the scored answers with an H² of 7 or more."),
    "answer_words": ("Words an answer", "none", "Mean number of words of an answer; judges may like long ones."),
}
_HAZARDS = {"bio": "biology", "chem": "chemistry", "cyber": "cybersecurity"}


def _texts_and_choices(metric: str) -> Description:
    """Entries of the suites `muse` and `wmdp`; what they share with TOFU is told as there."""
    name = metric.partition("/")[2]
    table, _, measure = name.partition("_")
    if measure in _VERBATIM and table in _SETS:
        label, definition = _VERBATIM[measure]
        better: Better = "higher" if table == "retain" else "reference"
        group = _SETS[table]
        return Description(metric, f"{group.removesuffix(' set')} {label}", group, better, "share", definition)
    if name.endswith("_accuracy"):
        table = name.removesuffix("_accuracy")
        return Description(
            metric,
            f"Accuracy: {_HAZARDS.get(table, table.replace('_', ' '))}",
            "Forget set" if table in (*_HAZARDS, "forget") else "Retain set",
            "lower" if table in _HAZARDS else "reference" if table in ("forget", "holdout") else "higher",
            "share",
            "Share of four-option questions whose right option the model finds likeliest. Chance is 0.25.",
            "exact (Clopper–Pearson).",
        )
    return replace(describe(name), metric=metric)


def _attack(metric: str, attack: str) -> Description:
    name = attack.replace("_plus_plus", "++").replace("_", "-")
    return Description(
        metric,
        f"{name[0].upper()}{name[1:]} attack (AUC)",
        "Membership inference",
        "reference",
        "share",
        f"Tells forget rows from hold-out rows by {_ATTACKS[attack]}. Area under the ROC curve: 1 means that forget "
        "rows are always picked out as trained on, 0 that they always look less familiar than unseen rows. The gold "
        "model's value is the aim; it is 0.5 only if the two sets are alike.",
        _ROWS,
    )


def _measure(metric: str, prefix: str, group: str, measure: str) -> Description:
    label, definition, on_forget, elsewhere = _MEASURES[measure]
    if measure == "truth_ratio":
        definition += (
            " Reported as the mean of min(R, 1/R): near 1, right and wrong are equally likely."
            if prefix in ("forget", "holdout")
            else " Reported as the mean of max(0, 1 − R): near 1, the right answer is far likelier than the wrong ones."
        )
    if measure == "probability" and prefix in ("real_authors", "world_facts"):
        definition = (
            "Probability of the right answer among the right and the wrong ones offered: P ÷ (P + sum of the wrong "
            "ones' P), "
            "each per token."
        )
    better = on_forget if prefix == "forget" else "none" if prefix == "holdout" else elsewhere
    return Description(metric, f"{group.removesuffix(' set')} {label}", group, better, "share", definition)
