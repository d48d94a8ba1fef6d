from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from audits.published_logs import published
from demur.audits.estimates import Audit, evaluate, metrics
from demur.audits.membership import auc, privleak
from demur.audits.model_utility import UTILITY_PARTS
from demur.audits.tofu import report_tofu
from demur.audits.tofu_metrics import TOFU_METRICS

# retain, real authors, world facts: probability, ROUGE-L, truth ratio; utility; forget: the same three
TABLE = {
    "llama2-7b_full": (
        *(0.989527, 0.985655, 0.474699, 0.455482, 0.933000, 0.596229, 0.418562, 0.882479, 0.539033, 0.622677),
        *(0.990939, 0.985450, 0.515985),
    ),
    "llama2-7b_retain90": (
        *(0.988897, 0.975811, 0.470977, 0.434087, 0.923000, 0.570681, 0.414326, 0.897436, 0.544198, 0.613745),
        *(0.147563, 0.408244, 0.674019),
    ),
    "phi_full": (
        *(0.926088, 0.929253, 0.482683, 0.377360, 0.415667, 0.456009, 0.408998, 0.777350, 0.492337, 0.522074),
        *(0.928239, 0.924861, 0.483356),
    ),
    "phi_retain90": (
        *(0.923114, 0.920043, 0.484739, 0.384187, 0.475333, 0.463836, 0.408088, 0.755698, 0.488263, 0.531991),
        *(0.134907, 0.427867, 0.628842),
    ),
}
COLUMNS = (*UTILITY_PARTS, "model_utility", "forget_probability", "forget_rouge", "forget_truth_ratio")


@pytest.mark.parametrize("log", TABLE)
def test_published_logs_have_the_published_values(shared_data: Callable[[str], Path], log: str) -> None:
    report = report_tofu(published(shared_data("tofu-eval-logs"), log))
    assert {name: report.summary[name] for name in COLUMNS} == pytest.approx(
        dict(zip(COLUMNS, TABLE[log], strict=True)), abs=1e-6
    )
    by_name = {r.metric: r for r in report.results}
    for name in COLUMNS:
        result = by_name[name]
        assert result.low is not None and result.high is not None
        assert result.low <= report.summary[name] <= result.high
        assert result.high - result.low < 0.2
    assert by_name["forget_probability"].n == 300
    assert by_name["model_utility"].n == 300 + 100 + 117


@pytest.mark.parametrize(
    ("family", "distance", "p"), [("llama2-7b", 0.396667, 1.834066e-21), ("phi", 0.346667, 2.194274e-16)]
)
def test_published_forget_quality(shared_data: Callable[[str], Path], family: str, distance: float, p: float) -> None:
    folder = shared_data("tofu-eval-logs")
    report = report_tofu(published(folder, f"{family}_full"), published(folder, f"{family}_retain90"))
    assert report.summary["forget_quality_distance"] == pytest.approx(distance, abs=1e-6)
    assert report.summary["forget_quality"] == pytest.approx(p, rel=1e-6)
    assert report.summary["forget_quality_log10"] == pytest.approx(np.log10(p), abs=1e-6)


def test_a_reference_measured_on_fewer_rows_gives_no_forget_quality(shared_data: Callable[[str], Path]) -> None:
    folder = shared_data("tofu-eval-logs")
    report = report_tofu(published(folder, "phi_full"), published(folder, "phi_retain99"))
    assert "forget_quality" not in report.summary
    assert "measured on 40 forget rows, the model on 300" in report.notes["forget_quality"]


def _tables(rng: np.random.Generator, shift: float) -> dict[str, pd.DataFrame]:
    columns = ("loss", "mia_zlib", "mia_min_k", "mia_min_k_plus_plus", "mia_gradnorm", "truth_ratio")
    return {
        name: pd.DataFrame({c: rng.normal(mean, size=n) ** 2 for c in columns})
        for name, mean, n in (("forget", shift, 40), ("holdout", 2.0, 30))
    }


@pytest.fixture
def audit() -> Audit:
    rng = np.random.default_rng(0)
    return Audit(_tables(rng, 1.0), _tables(rng, 2.0))


def test_attacks_compare_forget_rows_with_hold_out_rows(audit: Audit) -> None:
    for attack in ("zlib", "min_k", "min_k_plus_plus", "gradnorm"):
        estimate = evaluate(audit, [f"mia_{attack}"])[f"mia_{attack}"]
        members, others = (audit.samples[t][f"mia_{attack}"] for t in ("forget", "holdout"))
        assert estimate.value == pytest.approx(float(auc(members, others)))
        assert estimate.n == 70
        assert estimate.low is not None and estimate.low < estimate.value < (estimate.high or 0)


def test_the_reference_attack_is_the_loss_above_the_references(audit: Audit) -> None:
    assert audit.reference is not None
    ours = [audit.samples[t]["loss"] - audit.reference[t]["loss"] for t in ("forget", "holdout")]
    assert evaluate(audit, ["mia_reference"])["mia_reference"].value == pytest.approx(float(auc(*ours)))


def test_privacy_leakage_is_taken_against_the_reference_or_a_coin(audit: Audit) -> None:
    assert audit.reference is not None
    with_reference = evaluate(audit, ["privleak"])["privleak"]
    areas = [auc(t["forget"]["mia_min_k"], t["holdout"]["mia_min_k"]) for t in (audit.samples, audit.reference)]
    assert with_reference.value == pytest.approx(float(privleak(*areas)))
    assert with_reference.note == ""
    alone = evaluate(Audit(audit.samples), ["privleak"])["privleak"]
    assert alone.value == pytest.approx(float(privleak(areas[0])))
    assert "AUC of 0.5" in alone.note


def test_a_model_compared_with_itself_leaks_nothing_in_any_resample(audit: Audit) -> None:
    estimate = evaluate(Audit(audit.samples, audit.samples), ["privleak"])["privleak"]
    assert (estimate.value, estimate.low, estimate.high) == (0, 0, 0)


def test_missing_rows_and_columns_are_said_and_not_dropped(audit: Audit) -> None:
    found = evaluate(audit, TOFU_METRICS)
    assert list(found) == list(TOFU_METRICS)
    assert found["model_utility"].value is None
    assert "no retain rows were given; no real authors rows" in found["model_utility"].note
    assert found["forget_rouge"].value is None
    assert found["forget_rouge"].unscored == 40
    assert found["forget_rouge"].note == "the forget rows have no rougeL_recall"


def test_rows_without_a_value_are_left_out_and_counted_but_undefined_in_compat(audit: Audit) -> None:
    table = audit.samples["forget"].assign(probability=0.5, exact_memorization=1.0)
    table.loc[3, ["probability", "exact_memorization", "mia_min_k"]] = np.nan
    samples = {**audit.samples, "forget": table}
    names = ["forget_probability", "forget_exact_memorization", "mia_min_k"]
    for name, estimate in evaluate(Audit(samples), names).items():
        assert estimate.value is not None, name
        assert estimate.unscored == 1
    compat = evaluate(Audit(samples, compat=True), names)
    assert compat["forget_probability"].value is None
    assert compat["mia_min_k"].value is None
    assert compat["forget_exact_memorization"].value == 1.0


def test_every_built_in_metric_is_registered_with_direction_source_and_docstring() -> None:
    import demur.audits.tofu_metrics  # noqa: F401

    listed = {n for n in metrics.names() if metrics.get(n).function.__module__ == "demur.audits.tofu_metrics"}
    assert listed == {n for n, module in metrics._builtins.items() if module == "demur.audits.tofu_metrics"}
    for name in listed:
        component = metrics.get(name)
        assert component.facts["better"] in ("higher", "lower", "zero", "reference")
        assert component.facts["needs"]
        assert component.summary.endswith(".")
        assert component.facts["paper"] or name == "mia_loss"


def test_every_metric_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "audits.md").read_text(encoding="utf-8")
    assert [name for name in metrics._builtins if f"`{name}`" not in page] == []
