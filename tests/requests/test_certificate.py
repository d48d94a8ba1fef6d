from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pytest

from cli.command import FORGET as ROWS
from demur import UsageError
from demur.data import read_rows
from demur.requests import Ledger, verify_certificate
from demur.requests.store import canonical

SECRET = b"0123456789abcdef0123456789abcdef"


@pytest.fixture
def key(tmp_path: Path) -> Path:
    (tmp_path / "key").write_bytes(SECRET + b"\n")
    return tmp_path / "key"


def changed(file: Path, change: Any) -> Path:
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))
    return file


def test_it_says_what_was_asked_done_and_measured(answered: Ledger, tmp_path: Path) -> None:
    file = answered.certificate(1, tmp_path / "out")
    facts = json.loads(file.read_text())["certificate"]
    asked, done, measured = facts["request"], facts["done"], facts["measured"]
    assert (asked["requester"], asked["reason"], asked["rows"], asked["on_time"]) == (
        "ann@example.org",
        "article 17",
        4,
        True,
    )
    step = answered.history().steps[0]
    assert (
        done["weights_sha256"] == step.weights and done["method"]["objective"] == "npo" and done["run"] == "runs/0001"
    )
    score = measured["forget_score"]
    assert score["run"]["value"] < score["before"]["value"] and score["run"]["low"] <= score["run"]["value"]
    assert score["reference"]["n"] == 4 and [later["step"] for later in measured["forget_score_later"]] == [2, 3]
    assert measured["utility"]["before"]["n"] == 20
    assert facts["finding"]["word"] == "reduced" and "but more than" in facts["finding"]["sentence"]
    assert facts["chain"]["entry"] == answered.history().requests[1].entry and len(facts["limits"]) >= 4


def test_one_that_was_done_by_reference_says_for_which_requests(answered: Ledger, tmp_path: Path) -> None:
    file = answered.certificate(3, tmp_path)
    done = json.loads(file.read_text())["certificate"]["done"]
    assert (done["method"], done["new_rows"], done["earlier_requests"]) == (None, 0, [1, 2])
    assert "had been forgotten for request 1, 2" in file.with_suffix(".html").read_text()


def test_a_rejected_request_gets_its_reason(answered: Ledger, tmp_path: Path) -> None:
    answered.reject(4, "not identified")
    file = answered.certificate(4, tmp_path)
    assert json.loads(file.read_text())["certificate"]["explanation"] == "not identified"
    assert "not identified" in file.with_suffix(".html").read_text()
    assert verify_certificate(file, ledger=answered) == []


def test_its_hash_and_signature_are_those_that_anybody_computes(answered: Ledger, tmp_path: Path, key: Path) -> None:
    document = json.loads(answered.certificate(1, tmp_path, key).read_text())
    text = json.dumps(document["certificate"], sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
    assert document["sha256"] == hashlib.sha256(text).hexdigest()
    assert document["hmac_sha256"] == hmac.digest(SECRET, text, "sha256").hex()


def test_an_untouched_one_holds_whatever_its_layout(answered: Ledger, tmp_path: Path, key: Path) -> None:
    file = answered.certificate(1, tmp_path, key)
    named: dict[str, Any] = {"key": key, "ledger": answered, "rows": f"{ROWS}[0:4]"}
    assert verify_certificate(file, **named) == []
    file.write_text(json.dumps(json.loads(file.read_text()), indent=4))
    assert verify_certificate(file, **named) == []


def test_every_change_is_seen(answered: Ledger, tmp_path: Path, key: Path) -> None:
    original = answered.certificate(1, tmp_path / "out", key).read_text()

    def leaves(value: Any, path: tuple = ()) -> Any:
        if isinstance(value, dict | list):
            for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
                yield from leaves(inner, (*path, name))
        else:
            yield path

    paths = [path for path in leaves(json.loads(original)["certificate"]) if path not in (("kind",), ("version",))]
    assert len(paths) > 50
    for path in paths:
        document = json.loads(original)
        place = document["certificate"]
        for name in path[:-1]:
            place = place[name]
        place[path[-1]] = "other"
        file = tmp_path / "changed.json"
        file.write_text(json.dumps(document))
        assert any("has been changed" in problem for problem in verify_certificate(file)), path


def test_a_forger_without_the_key_is_caught(answered: Ledger, tmp_path: Path, key: Path) -> None:
    def forge(document: dict) -> None:
        document["certificate"]["request"]["rows"] = 5
        document["sha256"] = hashlib.sha256(canonical(document["certificate"]).encode()).hexdigest()

    file = changed(answered.certificate(1, tmp_path, key), forge)
    assert verify_certificate(file) == []
    assert verify_certificate(file, key) == ["its signature is not one of its content under this key"]
    other = tmp_path / "other"
    other.write_bytes(SECRET[::-1])
    assert verify_certificate(answered.certificate(1, tmp_path, key), other)
    assert verify_certificate(answered.certificate(1, tmp_path), key) == ["it is not signed"]


def test_one_of_another_ledger_or_of_other_rows_is_seen(answered: Ledger, make_ledger: Any, tmp_path: Path) -> None:
    file = answered.certificate(1, tmp_path)
    problems = verify_certificate(file, ledger=make_ledger(), rows=f"{ROWS}[0:3]")
    assert "has no entry" in problems[0] and "lacks entries" in problems[1] and "is not about the rows" in problems[2]


def test_neither_file_quotes_a_row(answered: Ledger, tmp_path: Path) -> None:
    file = answered.certificate(1, tmp_path)
    for text in (file.read_text(), file.with_suffix(".html").read_text()):
        for row in read_rows(f"{ROWS}[0:4]"):
            assert row["question"] not in text and row["answer"] not in text and row["person"] not in text


def test_what_cannot_be_certified_is_one_sentence(answered: Ledger, tmp_path: Path, key: Path) -> None:
    short = tmp_path / "short"
    short.write_bytes(b"secret")
    (tmp_path / "file").touch()
    for arguments, message in (
        ((4, tmp_path / "out"), "request 4 is received"),
        ((9, tmp_path / "out"), "there is no request 9"),
        ((1, tmp_path / "out", short), "has 6 bytes"),
        ((1, tmp_path / "out", tmp_path / "none"), "cannot read the key"),
        ((1, tmp_path / "file"), "cannot write the certificate"),
    ):
        with pytest.raises(UsageError, match=message):
            answered.certificate(*arguments)
    assert not (tmp_path / "out").exists()
    for content, message in (("{", "is not JSON"), ("[]", "no certificate of demur's"), ("{}", "no certificate")):
        (tmp_path / "file").write_text(content)
        with pytest.raises(UsageError, match=message):
            verify_certificate(tmp_path / "file")
    file = changed(answered.certificate(1, tmp_path), lambda d: d["certificate"].update(version=2))
    with pytest.raises(UsageError, match="newer demur"):
        verify_certificate(file)
