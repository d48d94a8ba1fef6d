from __future__ import annotations

import pytest

from demur.audits import TOFU_METRICS
from demur.audits.estimates import metrics
from demur.reports.glossary import ARROWS, GROUPS, HEADLINE, describe


@pytest.mark.parametrize("metric", sorted({*TOFU_METRICS, "mia_gradnorm", "forget_fluency"}))
def test_every_metric_that_an_audit_measures_is_defined(metric):
    entry = describe(metric)
    assert entry.definition.endswith(".")
    assert entry.group in GROUPS and entry.group != "Other"
    assert entry.label[0].isupper() and "_" not in entry.label


@pytest.mark.parametrize("metric", TOFU_METRICS)
def test_the_glossary_points_the_same_way_as_the_audit(metric):
    assert describe(metric).better == metrics.get(metric).facts["better"]


def test_labels_are_unique():
    labels = [describe(metric).label for metric in TOFU_METRICS]
    assert len(set(labels)) == len(labels)


def test_an_unknown_metric_keeps_its_name_and_gets_no_invented_definition():
    entry = describe("novel/some_score")
    assert (entry.label, entry.definition, entry.group) == ("novel/some score", "", "Other")


def test_the_headline_is_defined_and_every_direction_has_an_arrow():
    assert all(describe(metric).definition for metric in HEADLINE)
    assert {describe(metric).better for metric in TOFU_METRICS} <= set(ARROWS)


def test_every_suites_metrics_are_defined_and_point_the_way_the_metric_says():
    suites = {"demur.audits.muse_metrics": "muse", "demur.audits.safe_eraser": "safe-eraser"}
    found = [(name, suites[m]) for name, m in metrics._builtins.items() if m in suites]
    assert len(found) > 15
    for name, suite in found:
        entry = describe(f"{suite}/{name}")
        assert entry.definition, name
        assert entry.better == metrics.get(name).facts["better"], name
