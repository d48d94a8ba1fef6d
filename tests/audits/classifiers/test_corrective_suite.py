from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from cli.command import demur
from demur.audits.classifiers.corrective_suite import CorrectiveSettings
from demur.data.labelled_sources import read_labelled
from demur.data.manipulations import BackdoorPatch, InterclassSwap, LabelShuffle
from demur.errors import UsageError
from demur.reports.glossary import describe
from demur.runs import RunFolder

NET = """
import torch
from torch import nn
from demur.models.classifier import Classifier

def untrained():
    return Classifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10)), head="3")
"""
DATA = read_labelled("digits:train[0:50]")


def test_from_the_command_line_to_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "corrective_net.py").write_text(NET)
    rows = ["--rows", "data=digits:train[0:300]", "--rows", "test=digits:test[0:150]"]
    given = [
        "size=2",
        "n=40",
        "ratios=0.5, 1",
        "epochs=6",
        "learning_rate=0.1",
        "methods={retrain: {}, ft: {epochs: [1, 2]}}",
    ]
    options = [word for option in given for word in ("--option", option)]
    done = demur("audit", "corrective_net:untrained", "--suite", "corrective", *rows, *options, "--out", "audit")
    assert done.code == 0, done.err
    folder = RunFolder.open("audit")
    table, found = folder.samples("corrective_curve"), folder.results().set_index("metric")
    assert table is not None and set(table["method"]) == {"original", "retrain", "ft"}
    for row in table.to_dict("records"):
        assert found.loc[f"{row['metric']}:{row['method']}@{row['ratio']:g}", "value"] == row["value"]
    assert found.loc["retained_accuracy:original@0", "n"] == 100  # a third of the test rows chooses settings
    tried = table[table["method"] == "ft"]["options"].map(json.loads)
    assert {options["epochs"] for options in tried} <= {1, 2}
    assert found.loc["attack_success:original@0", "value"] > found.loc["attack_success:retrain@1", "value"]
    assert all(describe(f"corrective/{name}").definition for name in found.index)
    assert demur("report", "audit", "--out", "report.html").code == 0
    page = Path("report.html").read_text()
    assert "Corrected accuracy, from" in page and len(re.findall('<svg[^>]*class="plot"', page)) >= 2
    assert "retrain, 50% found" in page


def test_manipulations_are_made_from_options() -> None:
    assert CorrectiveSettings(size=2, target="4").made(DATA) == BackdoorPatch(2, target=4)
    assert CorrectiveSettings("swap", classes="3,8").made(DATA) == InterclassSwap(3, 8)
    assert CorrectiveSettings("swap", classes=(3, 8)).made(DATA) == InterclassSwap(3, 8)
    assert CorrectiveSettings("shuffle").made(DATA) == LabelShuffle()
    assert CorrectiveSettings(ratios=0.5).found == (0.5,)
    assert CorrectiveSettings(ratios=(0.1, 1)).found == (0.1, 1.0)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"manipulation": "smear"}, "no manipulation 'smear'"),
        ({"manipulation": "swap", "classes": "3"}, "a swap needs two classes"),
        ({"target": "ten"}, "has no class 'ten'"),
        ({"ratios": "a,b"}, "write numbers and commas"),
        ({"methods": "retrian"}, "unknown editing method 'retrian'"),
        ({"methods": {"ft": {"epoch": 2}}}, "has no option 'epoch'"),
        ({"epochs": 0}, "at least 1"),
    ],
    ids=str,
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        made = CorrectiveSettings(**settings)  # type: ignore[arg-type]
        made.made(DATA), made.found, made.candidates


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    words = ["audit", "lab:digits-resnet", "--suite", "corrective", "--out", tmp_path / "a"]
    assert "needs --rows data=SOURCE" in demur(*words).sentence
    both = ["--rows", "data=digits:train", "--rows", "test=digits:test[0:2]"]
    assert "too few rows" in demur(*words, *both).sentence
    assert "no set 'tests'" in demur(*words, *both, "--rows", "tests=digits:test").sentence
    assert not (tmp_path / "a").exists()
