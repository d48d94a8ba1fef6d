from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cli.command import demur
from demur.audits.classifiers.worst_case_suite import WorstCaseSettings
from demur.data.labelled import Labelled, split_off
from demur.data.labelled_sources import read_labelled
from demur.errors import UsageError
from demur.reports.glossary import describe
from demur.runs import RunFolder

NET = """
import torch
from torch import nn
from demur.data.labelled_sources import read_labelled
from demur.models import train_classifier
from demur.models.classifier import Classifier

def trained():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    data = read_labelled("digits:train[0:200]")
    return train_classifier(Classifier(net, head="3"), data, epochs=20, learning_rate=0.1)
"""
TRAIN = "digits:train[0:200]"


def test_from_the_command_line_to_the_report_and_to_forgetting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "worst_net.py").write_text(NET)
    given = ["draws=3", "outer_steps=2", "epochs=20", "learning_rate=0.1"]
    options = [word for option in given for word in ("--option", option)]
    rows = ["--rows", f"data={TRAIN}", "--rows", "test=digits:test[0:100]"]
    done = demur("audit", "worst_net:trained", "--suite", "worst-case", *rows, *options, "--out", "audit")
    assert done.code == 0, done.err
    folder = RunFolder.open("audit")
    found = folder.results().set_index("metric")["value"]
    assert found["loss:worst"] < found["loss:random"] < found["loss:easiest"]
    assert found["unlearning_accuracy:worst"] <= found["unlearning_accuracy:random"]
    assert all(describe(f"worst-case/{name}").definition for name in found.index)
    table = folder.samples("worst_case_sets")
    assert table is not None and set(table["rows"]) == {20} and len(table) == 6
    ids = np.load("audit/forget.npy")
    split = split_off(read_labelled(TRAIN), "rows:audit/forget.npy")
    assert sorted(split.forget.ids.tolist()) == sorted(ids.tolist()) and len(ids) == 20
    assert not set(ids) & set(np.load("audit/easiest.npy"))
    assert demur("report", "audit", "--out", "report.html").code == 0
    page = Path("report.html").read_text()
    assert "Forget sets of the same size" in page and "hardest to forget" in page


def test_groups_are_classes_or_the_rows_own_and_numbered_without_gaps() -> None:
    data = Labelled(
        torch.rand(6, 2), torch.tensor([0, 0, 2, 2, 2, 0]), ("a", "b", "c"), groups=torch.arange(6) // 3 * 5
    )
    classes = WorstCaseSettings(groups="class").numbers(data)
    groups = WorstCaseSettings(groups="group").numbers(data)
    assert classes is not None and classes.tolist() == [0, 0, 1, 1, 1, 0]
    assert groups is not None and groups.tolist() == [0, 0, 0, 1, 1, 1]
    with pytest.raises(UsageError, match="has no groups"):
        WorstCaseSettings(groups="group").numbers(read_labelled(TRAIN))


@pytest.mark.parametrize(
    ("settings", "said"), [({"groups": "kind"}, "class or group"), ({"draws": 1}, "at least 2")], ids=str
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        WorstCaseSettings(**settings)  # type: ignore[arg-type]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    words = ["audit", "lab:digits-resnet", "--suite", "worst-case", "--out", tmp_path / "a"]
    assert "needs --rows data=SOURCE" in demur(*words).sentence
    assert "no setting 'sise': did you mean size" in demur(*words, "--option", "sise=3").sentence
