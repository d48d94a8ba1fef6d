from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pandas as pd

from demur.audits.classifiers.scores import metric_names
from demur.reports.classifier_view import ClassifierView, classifier_views
from demur.reports.evidence import read_runs
from demur.reports.glossary import describe
from demur.runs import Result, RunFolder

NOTE = "far below the retrained model's: it forgot more than never having seen the rows does"


def row(
    role: str, metric: str, value: float | None, reference: float | None = None, note: str = ""
) -> dict[str, object]:
    gap = None if value is None or reference is None else abs(value - reference)
    facts = {"low": None, "high": None, "n": 10, "better": "reference", "reference": reference, "gap": gap}
    return {"role": role, "metric": metric, "value": value, "note": note, **facts}


def view(folder: Path) -> ClassifierView:
    run = RunFolder.create(folder, {"command": "forget"})
    table = [
        row("run", "unlearning_accuracy", 0.4, 1.0),
        row("run", "mia_member_rate", 0.0, 0.5, NOTE),
        row("run", "klom_forget", 3.0, 0.8),
        row("run", "mia_loss_accuracy", None, None, "the loss attack needs ten rows"),
        row("reference", "unlearning_accuracy", 1.0),
        row("reference", "mia_member_rate", 0.5),
    ]
    run.write_samples("classifier_unlearning_metrics", pd.DataFrame(table))
    curve = [{"role": role, "step": s, "accuracy": s / 9} for role in ("run", "reference") for s in range(10)]
    run.write_samples("classifier_unlearning_relearning", pd.DataFrame(curve))
    run.add_results([Result(run.name, "classifier-unlearning", "unlearning_accuracy", 0.4, None, None, 10)])
    return classifier_views(read_runs([run]))[0]


def test_each_metric_stands_beside_the_retrained_model_s_with_its_gap(tmp_path: Path) -> None:
    shown = view(tmp_path / "run")
    assert list(shown.models) == ["this model", "retrained"]
    by_label = {r.label: r for r in shown.rows}
    assert list(by_label["UA"].cells) == ["0.40", "1.00"] and by_label["UA"].gap == "0.60"
    assert by_label["KLoM, forget rows"].cells[1] == "0.80"  # two populations that never saw the rows
    assert by_label["MIA on loss, accuracy"].cells[0] == "–"
    assert by_label["MIA on loss, accuracy"].note == "the loss attack needs ten rows"


def test_forgetting_too_much_is_told_above_the_table(tmp_path: Path) -> None:
    assert list(view(tmp_path / "run").warnings) == [NOTE]


def test_the_way_back_is_drawn_for_each_model(tmp_path: Path) -> None:
    figure, caption = view(tmp_path / "run").figures[0]
    tree = ElementTree.fromstring(str(figure))
    text = "".join(tree.itertext())
    assert "this model from 0.00 to 1.00" in text and "retrained from 0.00 to 1.00" in text
    assert "only hidden" in caption


def test_every_metric_of_the_suite_has_a_definition() -> None:
    many = ["u_lira", "u_lira_tpr", *(f"klom_{rows}{tail}" for rows in ("forget", "test") for tail in ("", "_p95"))]
    for name in [*metric_names(), *many]:
        assert describe(f"classifier-unlearning/{name}").definition, name
