from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from demur.reports.evidence import read_runs
from demur.reports.forget_sets_glossary import describe_corrective, describe_worst_case
from demur.reports.forget_sets_view import corrective_views, worst_case_views
from demur.runs import Result, RunFolder


def _run(folder: Path, suite: str, name: str, table: pd.DataFrame) -> RunFolder:
    run = RunFolder.create(folder, {"command": "audit"})
    run.add_results([Result(folder.name, suite, "test_accuracy:worst", 0.9, 0.8, 0.95, 100)])
    run.write_samples(name, table)
    return run


def _curve() -> pd.DataFrame:
    values = {
        ("original", 0.0): 0.1,
        ("retrain", 1.0): 0.95,
        ("retrain", 0.5): 0.05,
        ("ssd", 0.5): 0.7,
        ("ssd", 1.0): 0.8,
    }
    rows = [
        {"method": method, "ratio": ratio, "metric": metric, "value": value, "low": value - 0.05, "high": value + 0.05}
        for metric in ("corrected_accuracy", "retained_accuracy")
        for (method, ratio), value in values.items()
    ]
    return pd.DataFrame(rows)


def test_every_method_has_a_line_from_the_model_as_trained_to_everything_found(tmp_path: Path) -> None:
    run = _run(tmp_path / "a", "corrective", "corrective_curve", _curve())
    (view,) = corrective_views(read_runs([run]))
    assert view.label == "a" and len(view.figures) == 2
    drawing, caption = view.figures[0]
    assert caption == "Corrected accuracy, from 0.10 as trained: retrain 0.95 at 100%; ssd 0.80 at 100%."
    order = [drawing.index(f"retrain, {name}") for name in ("as trained", "50% found: 0.05", "100% found: 0.95")]
    assert order == sorted(order)
    assert worst_case_views(read_runs([run])) == []


def test_named_sets_are_labelled_and_random_ones_are_points(tmp_path: Path) -> None:
    rows = [("worst", 0.0, 0.0), ("easiest", 1.2, 0.35), ("ranking", 1e-3, 0.0), ("random 1", 0.1, 0.04)]
    table = pd.DataFrame(rows, columns=["set", "loss", "unlearning_accuracy"])
    (view,) = worst_case_views(read_runs([_run(tmp_path / "b", "worst-case", "worst_case_sets", table)]))
    ((drawing, caption),) = view.figures
    assert ">easiest<" in drawing and ">random 1<" not in drawing
    assert "easiest: loss 1.2" in caption and "random sets: loss 0.10, 4.0% wrong in the mean of 1" in caption


@pytest.mark.parametrize(
    ("metric", "label", "group"),
    [
        ("corrected_accuracy:ssd@0.5", "ssd, 50% found", "Corrected accuracy"),
        ("attack_success:original@0", "as trained", "Attack success"),
        ("delete_error:bad-teacher@0.15", "bad-teacher, 15% found", "Delete error"),
    ],
)
def test_corrective_numbers_are_named_by_method_and_share(metric: str, label: str, group: str) -> None:
    told = describe_corrective(metric)
    assert told[:2] == (label, group) and told[2].endswith(".")


def test_numbers_that_are_not_known_get_no_definition() -> None:
    assert describe_worst_case("loss:easiest")[:2] == ("easiest to forget", "Loss")
    assert describe_worst_case("gain:easiest")[2] == describe_corrective("corrected_accuracy")[2] == ""
