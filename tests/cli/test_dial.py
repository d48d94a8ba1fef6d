"""Refusal tokens from the command line: taught, drawn as a curve, calibrated, asked, audited and reported."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from cli.command import demur
from demur.runs import RunFolder
from tiny import save_tiny

ROWS = [
    {
        "id": str(n),
        "prompt": [f"where was oda {n} born?", f"who wrote lamp {n}?", f"is oda {n} in?", f"town of kell {n}!"][n % 4],
        "response": "i cannot say that." if n % 2 else "in the town of kell.",
        "label": "refuse" if n % 2 else "comply",
        "category": "lamps" if n % 4 == 1 else "towns",
    }
    for n in range(12)
]


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory, lab_cache: Path) -> Path:
    """A folder with the rows and a run that was taught a token for each category."""
    folder = tmp_path_factory.mktemp("dial")
    save_tiny(folder / "model")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    done = demur(
        *("refuse", folder / "model", "--data", folder / "rows.jsonl", "--method", "refusal-tokens"),
        *("--option", "categories=true", "--epochs", 30, "--batch-size", 6, "--learning-rate", 5e-3),
        *("--warmup", 0, "--out", folder / "run"),
    )
    assert done.code == 0, done.err
    return folder


def test_the_curve_is_printed_written_and_drawn(taught: Path, tmp_path: Path):
    run, rows = taught / "run", taught / "rows.jsonl"
    done = demur("guard", "curve", run, "--rows", rows, "--out", tmp_path / "c.csv", "--plot", tmp_path / "c.svg")
    assert done.code == 0, done.err
    assert "area under the curve 1.000" in done.out and "6 rows to refuse, 6 to answer" in done.out
    points = pd.read_csv(tmp_path / "c.csv")
    assert (points["threshold"].diff().dropna() < 0).all() and points["refusal_rate"].is_monotonic_increasing
    assert points.iloc[-1][["refusal_rate", "over_refusal"]].tolist() == [1.0, 1.0]
    assert (tmp_path / "c.svg").read_text().startswith("<svg") and "threshold" in (tmp_path / "c.svg").read_text()


def test_a_calibrated_dial_is_asked_and_audited(taught: Path, tmp_path: Path):
    run, rows, dial = taught / "run", taught / "rows.jsonl", tmp_path / "dial"
    done = demur("guard", "calibrate", run, "--rows", rows, "--rate", "lamps=0", "--rate", "towns=1", "--out", dial)
    assert done.code == 0, done.err
    assert "lamps: threshold 2, refuses 0.000" in done.out and "towns: threshold" in done.out
    answer = demur("guard", "ask", dial, "who wrote lamp 1?", "who wrote lamp 3?", "--max-new-tokens", 30)
    assert answer.code == 0 and "[" not in answer.out
    told = demur("guard", "ask", dial, "who wrote lamp 1?", "--explain", "--max-new-tokens", 30)
    assert "token:      [respond]" in told.out and "lamps:" in told.out
    always = demur("guard", "ask", run, "who wrote lamp 1?", "--threshold", "0", "--explain", "--max-new-tokens", 30)
    assert "token:      [refuse:lamps]" in always.out
    found = {}
    for name, more in {"plain": [], "dialled": ["--guard", dial]}.items():
        words = ["--suite", "refusal", "--rows", f"test={rows}", "--max-new-tokens", 30, "--no-before"]
        done = demur("audit", run, *words, "--out", tmp_path / name, *more)
        assert done.code == 0, done.err
        found[name] = RunFolder(tmp_path / name).results().query("role == 'run'").set_index("metric")["value"]
    assert found["plain"]["full_refusals"] == 1.0 and found["plain"]["over_refusals"] == 0.0
    assert found["plain"]["refusal_token_auc"] == 1.0
    assert found["dialled"]["full_refusals:towns"] == 1.0
    assert RunFolder(tmp_path / "dialled").state["refusal"]["guard"] == str(dial)
    done = demur("report", tmp_path / "plain", tmp_path / "dialled", "--out", tmp_path / "report.html")
    assert done.code == 0, done.err
    page = (tmp_path / "report.html").read_text()
    assert 'id="refusal"' in page and "every threshold" in page and f"The guard {dial} answered." in page


def test_what_was_asked_wrongly_is_said_in_a_sentence(taught: Path, tmp_path: Path):
    run, rows = taught / "run", taught / "rows.jsonl"
    words = ["guard", "calibrate", run, "--rows", rows, "--out", tmp_path / "dial"]
    for more, sentence in {
        (): "say what to aim for",
        ("--rate", "lamps=x"): "'x' is not a number",
        ("--rate", "0.5", "--rate", "lamps=1"): "give it alone",
        ("--rate", "lampz=1"): "did you mean lamps?",
        ("--rate", "1.5"): "between 0 and 1",
        ("--max-over-refusal", "0.1", "--bias", "3"): "--bias needs a category",
        ("--rate", "0.5", "--temperature", "0"): "above 0",
    }.items():
        done = demur(*words, *more)
        assert done.code == 2 and sentence in done.sentence, done
    assert "refusal_tokens.json" in demur("guard", "ask", taught / "model", "who?").sentence
    assert demur("guard", "check", run).code == 2


def test_a_highest_over_refusal_is_kept(taught: Path, tmp_path: Path):
    done = demur(
        *("guard", "calibrate", taught / "run", "--rows", taught / "rows.jsonl", "--max-over-refusal", "0.2"),
        *("--out", tmp_path / "dial"),
    )
    assert done.code == 0 and "refuses 0.167" in done.out.splitlines()[1], done
