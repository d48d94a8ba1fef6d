from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.command import FORGET, MODEL, RETAIN, Outcome, demur
from demur.requests import Ledger

pytestmark = pytest.mark.usefixtures("tiny_model")


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    words = ["--learning-rate", 5e-4, "--epochs", 1, "--option", "beta=0.2", "--save-steps", 10**6]
    done = demur("requests", "init", tmp_path / "ledger", "--model", MODEL, "--retain", RETAIN, *words)
    assert done.code == 0, done.err
    return tmp_path / "ledger"


def add(ledger: Path, window: str, requester: str = "ann", *more: str) -> Outcome:
    return demur("requests", "add", ledger, "--rows", f"{FORGET}{window}", "--requester", requester, *more)


def test_from_the_first_request_to_its_certificate(ledger: Path, tmp_path: Path) -> None:
    forget = Ledger.open(ledger).settings["forget"]
    assert (forget["learning_rate"], forget["epochs"], forget["objective_options"]) == (5e-4, 1, {"beta": 0.2})
    assert add(ledger, "[0:3]").out.startswith("request 1: 3 rows, due ")
    assert "the same was asked before" in add(ledger, "[0:3]").out
    assert json.loads(add(ledger, "[3:5]", "bob", "--json").out) == {"id": 2, "repeated": False, "unknown": None}
    done = demur("requests", "process", ledger, "--set", "seed=3")
    assert done.code == 0, done.err
    assert [line.split(":")[:2] for line in done.out.splitlines()[:2]] == [
        ["request 1", " done"],
        ["request 2", " done"],
    ]
    assert (ledger / "status.html").is_file()
    assert demur("requests", "process", ledger).out == "nothing waits\n"

    shown = demur("requests", "status", ledger)
    assert "ann" in shown.out and "runs/0002" in shown.out and "done" in shown.out and "in time" in shown.out
    found = json.loads(demur("requests", "status", ledger, "--json").out)
    assert found["sequence"][0]["settings"] == {"seed": 3}

    checked = demur("requests", "verify", ledger, 1, "--rows", f"{FORGET}[0:3]")
    assert checked.code == 0 and all(line.startswith("ok") for line in checked.out.splitlines())
    wrong = demur("requests", "verify", ledger, 1, "--rows", FORGET, "--no-measure", "--json")
    assert wrong.code == 1 and [f["what"] for f in json.loads(wrong.out) if not f["holds"]] == ["request 1: rows"]

    key = tmp_path / "key"
    key.write_text("0123456789abcdef0123456789abcdef")
    made = demur("requests", "certificate", ledger, 1, "--out", tmp_path / "out", "--key", key)
    file, page = map(Path, made.out.split())
    assert file.is_file() and page.is_file()
    words = ["requests", "verify-certificate", file, "--key", key, "--ledger", ledger]
    assert demur(*words).code == 0
    file.write_text(file.read_text().replace('"rows":3', '"rows":4'))
    again = demur(*words)
    assert again.code == 1 and "has been changed" in again.out and "its signature" in again.out

    assert demur("requests", "redact", ledger, 1).out == "request 1: redacted\n"
    assert demur("requests", "verify", ledger, "--no-measure").code == 0


def test_a_check_fails_when_something_is_overdue(ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from datetime import timedelta

    from demur.requests import ledger as module

    add(ledger, "[0:1]", "ann", "--days", "3")
    assert demur("requests", "status", ledger, "--check").code == 0
    now = module.now
    monkeypatch.setattr(module, "now", lambda: now() + timedelta(days=5))
    late = demur("requests", "status", ledger, "--check")
    assert late.code == 1 and late.sentence == "overdue: request 1" and "overdue by" in late.out
    assert demur("requests", "status", ledger).code == 0
    assert demur("requests", "reject", ledger, 1, "--reason", "not identified").code == 0
    assert demur("requests", "status", ledger, "--check").code == 0


def test_the_first_request_may_make_the_ledger(tmp_path: Path) -> None:
    made = add(tmp_path / "ledger", "[0:1]", "ann", "--model", MODEL, "--retain", RETAIN)
    assert made.code == 0 and made.out.startswith("request 1")
    again = add(tmp_path / "ledger", "[1:2]", "ann", "--model", MODEL)
    assert again.code == 2 and "is a ledger already" in again.sentence


def test_a_request_that_fails_is_told_and_the_command_fails(ledger: Path) -> None:
    add(ledger, "[0:2]")
    done = demur(
        "requests", "process", ledger, "--set", "objective=ga", "--set", "learning_rate=1e38", "--set", "epochs=3"
    )
    assert done.code == 1 and "request 1: failed: " in done.out
    assert "failed" in demur("requests", "status", ledger).out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["status", "nowhere"], "nowhere holds no ledger: make one with demur requests init"),
        (["add", "nowhere", "--rows", FORGET, "--requester", "ann"], "holds no ledger"),
        (["process", "{ledger}", "--set", "epoch=2"], "setting 'epoch'"),
        (["process", "{ledger}", "--set", "epochs"], "--set 'epochs' is not NAME=VALUE"),
        (["certificate", "{ledger}", "7", "--out", "out"], "there is no request 7: the ledger has none yet"),
        (["verify", "{ledger}", "7"], "there is no request 7"),
        (["add", "{ledger}", "--rows", "none.jsonl", "--requester", "ann"], "no such file or folder: none.jsonl"),
        (["add", "{ledger}", "--rows", RETAIN, "--requester", "ann"], "all rows that are left to keep"),
        (["init", "{ledger}", "--model", MODEL, "--retain", RETAIN], "holds a ledger already"),
        (["verify-certificate", "{ledger}/ledger.sqlite"], "is no certificate"),
    ],
)
def test_bad_input_is_one_sentence(words: list[str], message: str, ledger: Path) -> None:
    done = demur("requests", *(word.format(ledger=ledger) for word in words))
    assert done.code == 2 and message in done.sentence


def test_a_damaged_ledger_is_one_sentence(ledger: Path) -> None:
    (ledger / "ledger.sqlite").write_bytes(b"no database at all, but long enough to be looked at" * 100)
    done = demur("requests", "status", ledger)
    assert done.code == 1 and "is damaged" in done.sentence


def test_the_help_of_every_command_has_an_example() -> None:
    for command in (
        "init",
        "add",
        "process",
        "status",
        "verify",
        "certificate",
        "verify-certificate",
        "reject",
        "redact",
    ):
        assert f"Example: demur requests {command}" in " ".join(demur("requests", command, "--help").out.split())
