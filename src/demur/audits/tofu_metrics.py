"""The metrics of the TOFU suite, each a few lines over the tables that the suite's scoring pass wrote."""

from __future__ import annotations

from typing import Any

import numpy as np

from demur.audits.estimates import Audit, Estimate, Unavailable, metric
from demur.audits.forget_quality import ForgetQuality, forget_quality_test, ks_distance_interval
from demur.audits.membership import auc, privleak
from demur.audits.model_utility import UTILITY_PARTS, harmonic_mean
from demur.audits.truth_ratio import Aggregator, truth_ratio_scores

__all__ = ["HINTS", "TOFU_METRICS", "attack_column"]

_TOFU, _OPEN_UNLEARNING, _MUSE = "2401.06121", "2506.12618", "2407.06460"
_WORDS = {
    "forget": "forget set",
    "retain": "retain set",
    "real_authors": "real authors",
    "world_facts": "world facts",
}
HINTS = {
    "truth_ratio": "it needs perturbed_answer, and paraphrased_answer on forget and retain rows",
    "truth_share": "it needs perturbed_answer and paraphrased_answer",
    "probability_normalised": "it needs perturbed_answer",
    "rougeL_recall": "it needs generation",
}
"""What the columns are made from that not every audit has."""


def _register_mean(name: str, table: str, column: str, better: Any, paper: str, summary: str) -> None:
    def compute(audit: Audit) -> Estimate:
        return audit.mean(table, column)

    compute.__doc__ = summary
    metric(name, better=better, paper=paper, needs=(table,))(compute)


def _register_truth_ratio(table: str, aggregator: Aggregator, better: Any) -> None:
    def compute(audit: Audit) -> Estimate:
        return audit.mean(table, "truth_ratio", lambda ratios: truth_ratio_scores(ratios, aggregator))

    compute.__doc__ = f"Truth ratio on the {_WORDS[table]}, aggregated by {aggregator}."
    metric(f"{table}_truth_ratio", better=better, paper=_TOFU, needs=(table,))(compute)


for _table, _where in _WORDS.items():
    _better = "reference" if _table == "forget" else "higher"
    _options = _table in ("real_authors", "world_facts")
    _register_mean(
        f"{_table}_probability",
        _table,
        "probability_normalised" if _options else "probability",
        _better,
        _TOFU,
        f"Mean length-normalised probability of the answer{' among the options' if _options else ''}, {_where}.",
    )
    _register_mean(
        f"{_table}_rouge", _table, "rougeL_recall", _better, _TOFU, f"Mean ROUGE-L recall of greedy answers, {_where}."
    )
    if _table == "forget":
        _register_truth_ratio(_table, "closer_to_1_better", "reference")
    else:
        _register_truth_ratio(_table, "true_better", "higher")

_register_mean(
    "forget_extraction_strength",
    "forget",
    "extraction_strength",
    "reference",
    _OPEN_UNLEARNING,
    "Mean share of a forget answer that the model completes without error from the rest.",
)
_register_mean(
    "forget_exact_memorization",
    "forget",
    "exact_memorization",
    "reference",
    _OPEN_UNLEARNING,
    "Mean share of a forget answer's tokens that the model ranks first.",
)
_register_mean(
    "forget_truth_share",
    "forget",
    "truth_share",
    "reference",
    _OPEN_UNLEARNING,
    "Mean share of the true answer's probability against the false answers', forget set.",
)
_register_mean(
    "forget_fluency",
    "forget",
    "fluency",
    "higher",
    _OPEN_UNLEARNING,
    "Mean score that a fluency scorer gives to the answers on the forget set.",
)


def _forget_quality(audit: Audit) -> tuple[ForgetQuality, int, int, int]:
    ours = audit.columns("forget", ["truth_ratio"])[:, 0]
    theirs = audit.columns("forget", ["truth_ratio"], of="reference")[:, 0]
    if not audit.compat and len(ours) != len(theirs):
        raise Unavailable(f"the reference was measured on {len(theirs)} forget rows, the model on {len(ours)}")
    kept, reference = ours[~np.isnan(ours)], theirs[~np.isnan(theirs)]
    return forget_quality_test(kept, reference), len(kept), len(reference), len(ours) - len(kept)


@metric("forget_quality", better="higher", paper=_TOFU, needs=("forget", "reference"))
def forget_quality_p(audit: Audit) -> Estimate:
    """p-value of the KS test between the truth ratios of the model and of the reference; high is indistinguishable."""
    quality, n, _, unscored = _forget_quality(audit)
    return Estimate(quality.p, n=n, unscored=unscored)


@metric("forget_quality_log10", better="higher", paper=_TOFU, needs=("forget", "reference"))
def forget_quality_log10(audit: Audit) -> Estimate:
    """Decimal logarithm of forget quality's p-value, without underflow."""
    quality, n, _, unscored = _forget_quality(audit)
    return Estimate(quality.log10_p, n=n, unscored=unscored)


@metric("forget_quality_distance", better="lower", paper=_TOFU, needs=("forget", "reference"))
def forget_quality_distance(audit: Audit) -> Estimate:
    """Largest gap between the distributions of truth ratios of the model and of the reference."""
    quality, n, m, unscored = _forget_quality(audit)
    low, high = ks_distance_interval(quality.distance, n, m)
    return Estimate(quality.distance, low, high, n, unscored, "exact")


@metric("model_utility", better="higher", paper=_TOFU, needs=("retain", "real_authors", "world_facts"))
def model_utility(audit: Audit) -> Estimate:
    """Harmonic mean of the nine scores on retain set, real authors and world facts."""
    tables, missing = [], []
    for table in ("retain", "real_authors", "world_facts"):
        probability = "probability" if table == "retain" else "probability_normalised"
        try:
            rows = audit.columns(table, [probability, "rougeL_recall", "truth_ratio"])
        except Unavailable as reason:
            missing.append(str(reason))
            continue
        rows[:, 2] = truth_ratio_scores(rows[:, 2], "true_better")
        if audit.compat and np.isnan(rows).any():
            missing.append(f"some {table.replace('_', ' ')} rows have no answer token")
        tables.append(rows)
    if missing:
        raise Unavailable(f"needs all of {len(UTILITY_PARTS)} scores: {'; '.join(missing)}")
    unscored = sum(int(np.isnan(rows).any(axis=1).sum()) for rows in tables)

    def utility(*draws: Any) -> Any:
        return harmonic_mean(np.concatenate([np.nanmean(d, axis=1) for d in draws], axis=-1))

    return audit.estimate(utility, *tables, unscored=unscored)


def attack_column(attack: str) -> str:
    """The column of a sample table that holds an attack's score."""
    return "loss" if attack == "loss" else f"mia_{attack}"


def _scores(audit: Audit, table: str, attack: str) -> tuple[Any, int]:
    if attack == "reference":
        pairs = audit.pairs(table, "loss")
        scores = pairs[:, 0] - pairs[:, 1]
    else:
        scores = audit.columns(table, [attack_column(attack)])[:, 0]
    kept = scores[~np.isnan(scores)]
    if audit.compat and len(kept) < len(scores):
        raise Unavailable(f"{len(scores) - len(kept)} {table} rows have no answer token", len(scores))
    return kept, len(scores) - len(kept)


def _register_attack(attack: str, summary: str, paper: str | None) -> None:
    def compute(audit: Audit) -> Estimate:
        members, left_out = _scores(audit, "forget", attack)
        others, also_left_out = _scores(audit, "holdout", attack)
        return audit.estimate(auc, members, others, unscored=left_out + also_left_out)

    compute.__doc__ = summary
    needs = ("forget", "holdout", "reference") if attack == "reference" else ("forget", "holdout")
    metric(f"mia_{attack}", better="reference", paper=paper, needs=needs)(compute)


_register_attack("loss", "Membership AUC of the mean loss, forget set against hold-out.", None)
_register_attack("zlib", "Membership AUC of the loss over the compressed length of the answer.", "2012.07805")
_register_attack("min_k", "Membership AUC of the least likely 40 % of the tokens.", "2310.16789")
_register_attack("min_k_plus_plus", "Membership AUC of min-k over normalised log-probabilities.", "2404.02936")
_register_attack("reference", "Membership AUC of the loss minus the reference model's.", "2012.07805")
_register_attack("gradnorm", "Membership AUC of the gradient's norm, a mean over parameter tensors.", "2402.17012")


@metric("privleak", better="zero", paper=_MUSE, needs=("forget", "holdout"))
def privacy_leakage(audit: Audit) -> Estimate:
    """Relative gap in percent between one minus the min-k AUC of the model and of the reference (.5 without one)."""
    column = attack_column("min_k")
    members, others = (audit.columns(table, [column]) for table in ("forget", "holdout"))
    note, paired = "", False
    try:
        members, others = (audit.pairs(table, column) for table in ("forget", "holdout"))
        paired = True
    except Unavailable as reason:
        note = f"measured against an AUC of {audit.reference_auc:g}: {reason}"
    unscored = int(np.isnan(members).any(axis=1).sum() + np.isnan(others).any(axis=1).sum())
    members, others = (rows[~np.isnan(rows).any(axis=1)] for rows in (members, others))

    def leakage(inside: Any, outside: Any) -> Any:
        ours = auc(inside[..., 0], outside[..., 0])
        return privleak(ours, auc(inside[..., 1], outside[..., 1]) if paired else audit.reference_auc)

    return audit.estimate(leakage, members, others, unscored=unscored, note=note)


TOFU_METRICS = (
    "forget_quality",
    "forget_quality_log10",
    "forget_quality_distance",
    "model_utility",
    *(f"forget_{score}" for score in ("probability", "rouge", "truth_ratio", "truth_share")),
    "forget_extraction_strength",
    "forget_exact_memorization",
    *UTILITY_PARTS,
    "mia_loss",
    "mia_zlib",
    "mia_min_k",
    "mia_min_k_plus_plus",
    "mia_reference",
    "privleak",
)
"""What the TOFU suite measures by default, in the order of its table; `mia_gradnorm` and `forget_fluency` on demand."""
