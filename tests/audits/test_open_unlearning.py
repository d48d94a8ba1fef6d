from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from audits.tiny_world import tiny_data
from demur.audits.open_unlearning import TOFU, read_eval, write_eval
from demur.audits.tofu import audit_tofu, report_tofu
from demur.audits.tofu_data import TofuSettings
from demur.errors import UsageError
from demur.models import LanguageModel

SETTINGS = TofuSettings(compat="open-unlearning", max_new_tokens=8)


@pytest.fixture(scope="module")
def written(knowing_lm: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    folder = tmp_path_factory.mktemp("eval")
    report = audit_tofu(knowing_lm, tiny_data(), settings=SETTINGS)
    report.save_open_unlearning(folder)
    return report, folder


def test_what_was_written_is_read_back_and_gives_the_same_values(written: tuple[Any, Path]) -> None:
    report, folder = written
    again = report_tofu(read_eval(folder), settings=SETTINGS)
    missing = {"forget_truth_share"}  # the file has no such score
    assert again.summary == pytest.approx({k: v for k, v in report.summary.items() if k not in missing})


def test_the_file_has_open_unlearnings_shape(written: tuple[Any, Path]) -> None:
    _, folder = written
    log = json.loads((folder / TOFU.eval_file).read_text())
    assert list(log) == sorted(log)
    assert set(log["forget_Q_A_Prob"]["value_by_index"]["0"]) == {"prob", "avg_loss"}
    assert len(log["forget_Q_A_PERT_Prob"]["value_by_index"]["5"]["prob"]) == 3
    assert set(log["mia_min_k"]) == {"forget", "holdout", "auc", "agg_value"}
    assert set(log["mia_min_k"]["forget"]) == {"agg_value", "value_by_index"}
    assert set(log["retain_Q_A_ROUGE"]["value_by_index"]["0"]) == {
        *("rouge1_recall", "rougeL_f1", "rougeL_recall", "input", "ground_truth", "generation")
    }
    assert log["forget_quality"] == {"agg_value": None}
    summary = json.loads((folder / TOFU.summary_file).read_text())
    assert "forget_quality" not in summary
    assert {"model_utility", "privleak", "forget_truth_ratio", "extraction_strength"} <= set(summary)


def test_a_retain_models_file_is_a_reference(written: tuple[Any, Path], knowing_lm: LanguageModel) -> None:
    _, folder = written
    report = audit_tofu(knowing_lm, tiny_data(), settings=SETTINGS, reference=read_eval(folder / TOFU.eval_file))
    assert report.summary["forget_quality"] == 1
    assert report.summary["privleak"] == 0
    assert report.summary["mia_reference"] == 0.5  # a model is as near to itself everywhere


def test_files_by_others_may_lack_metrics_and_have_ones_unknown_here(tmp_path: Path) -> None:
    log = {
        "forget_truth_ratio": {"agg_value": 0.6, "value_by_index": {"1": {"score": 0.7}, "0": {"score": 0.5}}},
        "exact_memorization": {"agg_value": 1.0, "value_by_index": {"0": {"score": None}, "1": {"score": 1.0}}},
        "forget_Q_A_gibberish": {"agg_value": 0.9},
        "mia_min_k": None,
    }
    (tmp_path / TOFU.eval_file).write_text(json.dumps(log))
    table = read_eval(tmp_path).tables["forget"]
    assert list(table["truth_ratio"]) == [0.5, 0.7]
    assert list(table["exact_memorization"].isna()) == [True, False]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot read"),
        ("[1]", "holds no metrics"),
        ("{}", "no values of forget rows"),
        ('{"forget_truth_ratio": {"value_by_index": [1]}}', "is no TOFU_EVAL.json"),
    ],
)
def test_what_is_no_such_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / TOFU.eval_file).write_text(text)
    with pytest.raises(UsageError, match=message):
        read_eval(tmp_path)
    with pytest.raises(UsageError, match="cannot read"):
        read_eval(tmp_path / "absent.json")


def test_nothing_but_finite_numbers_is_written(tmp_path: Path) -> None:
    import pandas as pd

    table = pd.DataFrame({"probability": [0.5, float("nan")], "loss": [0.7, float("nan")]})
    write_eval(tmp_path, {"forget": table}, {})
    rows = json.loads((tmp_path / TOFU.eval_file).read_text())["forget_Q_A_Prob"]["value_by_index"]
    assert rows["1"] == {"prob": None, "avg_loss": None}
