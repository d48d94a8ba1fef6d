from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.command import FORGET as ROWS
from demur import DemurError, UsageError
from demur.data import read_rows
from demur.requests import Ledger, Request
from demur.requests.store import now

Make = Callable[..., Ledger]
DAY = timedelta(days=1)


def jsonl(path: Path, *rows: dict) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_request_is_put_down_with_all_that_was_said(make_ledger: Make) -> None:
    ledger = make_ledger(days=10)
    before = now()
    found = ledger.add(f"{ROWS}[0:3]", " ann ", reason="article 17", note="by letter")
    assert Ledger.open(ledger.path).history().requests[1] == found
    assert (found.id, found.requester, found.reason, found.note, found.rows) == (1, "ann", "article 17", "by letter", 3)
    assert before <= found.received <= now() and found.deadline == found.received + 10 * DAY
    assert found.state == "received" and found.source == f"{ROWS}[0:3]" and not found.repeated
    (standing,) = ledger.status()
    assert standing.days_left in (9, 10) and not standing.overdue and standing.forget is None


def test_the_same_request_again_is_the_same_request(make_ledger: Make, tmp_path: Path) -> None:
    ledger = make_ledger()
    ledger.add(f"{ROWS}[0:2]", "ann")
    rows = [{"prompt": row["question"], "response": row["answer"]} for row in read_rows(f"{ROWS}[0:2]")]
    again = ledger.add(jsonl(tmp_path / "rows.jsonl", *rows[::-1], rows[0]), "ann")
    assert again.id == 1 and again.repeated
    assert not ledger.add(f"{ROWS}[0:2]", "bob").repeated
    assert not ledger.add(f"{ROWS}[0:3]", "ann").repeated
    assert len(ledger.history().requests) == 3


def test_rows_that_a_file_says_twice_are_asked_for_once(make_ledger: Make, tmp_path: Path) -> None:
    row = {"question": "Who wrote the green lamp?", "answer": "Oda Marsh."}
    other = {"question": "Who?", "answer": "Kell."}
    file = jsonl(tmp_path / "rows.jsonl", row, {**row, "question": row["question"].upper()}, other)
    ledger = make_ledger()
    assert ledger.add(file, "ann").rows == 2
    assert read_rows(ledger.rows_file(1))["answer"][:] == ["Oda Marsh.", "Kell."]


def test_times_are_utc_and_a_date_is_a_whole_day(make_ledger: Make) -> None:
    ledger = make_ledger()
    end = (now() + 5 * DAY).date()
    first = ledger.add(f"{ROWS}[0:1]", "ann", deadline=end.isoformat(), received="2026-01-31")
    assert first.deadline == datetime(end.year, end.month, end.day, 23, 59, 59, tzinfo=UTC)
    assert first.received == datetime(2026, 1, 31, tzinfo=UTC)
    late = f"{end.isoformat()}T01:00:00+02:00"
    assert ledger.add(f"{ROWS}[1:2]", "ann", deadline=late).deadline.hour == 23


@given(st.integers(-(10**6), 10**6))
def test_days_left_are_whole_days_and_negative_once_the_deadline_has_passed(seconds: int) -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    end = at + timedelta(seconds=seconds)
    request = Request(1, "a", None, None, None, at, end, 1, "", False, False, None)
    assert request.days_left(at) == seconds // 86400
    assert request.overdue(at) == (seconds < 0)


def test_only_open_requests_become_overdue(answered: Ledger) -> None:
    later = now() + 31 * DAY
    assert [s.overdue for s in answered.status(later)] == [False, False, False, True]
    assert [s.request.on_time for s in answered.status(later)] == [True, True, True, None]
    answered.reject(4, "not identified")
    assert not any(s.overdue for s in answered.status(later))


def test_rows_that_the_model_was_not_trained_on_are_reported(make_ledger: Make) -> None:
    ledger = make_ledger(training_data="lab:almanac-tiny:forget")
    assert ledger.add(f"{ROWS}[0:2]", "ann").unknown == []
    assert ledger.add("lab:almanac-tiny:holdout[0:2]", "ann").unknown == [1, 2]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"requester": " "}, "a request needs a requester"),
        ({"rows": "none.jsonl"}, "no such file or folder: none.jsonl"),
        ({"rows": f"{ROWS}[9:9]"}, "holds no rows"),
        ({"rows": "lab:almanac-tiny:retain"}, "holds all rows that are left to keep"),
        ({"deadline": "2020-01-01"}, "has passed already"),
        ({"deadline": "soon"}, "deadline 'soon' is no date"),
        ({"received": "2999-01-01"}, "in the future"),
    ],
)
def test_what_cannot_be_asked_is_one_sentence_and_leaves_nothing(
    given: dict, message: str, make_ledger: Make, tmp_path: Path
) -> None:
    ledger = make_ledger()
    before = ledger.history()
    with pytest.raises(UsageError, match=message.replace("[", r"\[")):
        ledger.add(**{"rows": f"{ROWS}[0:1]", "requester": "ann", **given})
    assert ledger.history() == before and not list(ledger.path.glob("rows/*"))
    file = jsonl(tmp_path / "empty.jsonl")
    with pytest.raises(UsageError, match="holds no rows"):
        ledger.add(file, "ann")


def test_the_last_rows_to_keep_cannot_be_asked_for_piece_by_piece(make_ledger: Make) -> None:
    ledger = make_ledger(retain="lab:almanac-tiny:retain[0:4]")
    ledger.add("lab:almanac-tiny:retain[0:3]", "ann")
    with pytest.raises(UsageError, match="nothing would remain"):
        ledger.add("lab:almanac-tiny:retain[3:4]", "bob")
    ledger.reject(1, "not identified")
    assert ledger.add("lab:almanac-tiny:retain[3:4]", "bob").id == 2


def test_a_rejected_request_may_be_made_again(make_ledger: Make) -> None:
    ledger = make_ledger()
    ledger.add(f"{ROWS}[0:1]", "ann")
    with pytest.raises(UsageError, match="needs a reason"):
        ledger.reject(1, " ")
    rejected = ledger.reject(1, "not identified")
    assert (rejected.state, rejected.explanation) == ("rejected", "not identified")
    assert not ledger.rows_file(1).exists() and ledger.process() == []
    assert ledger.add(f"{ROWS}[0:1]", "ann").id == 2
    with pytest.raises(UsageError, match="request 1 is rejected"):
        ledger.reject(1, "again")
    with pytest.raises(UsageError, match="there is no request 9: the ledger has 1 to 2"):
        ledger.reject(9, "why")


def test_redacting_deletes_what_is_personal_and_keeps_the_proof(answered: Ledger) -> None:
    with pytest.raises(UsageError, match="request 4 is received"):
        answered.redact(4)
    answered.redact(1)
    found = answered.history().requests[1]
    assert (found.requester, found.reason, found.note, found.source, found.redacted) == (None,) * 4 + (True,)
    for file in answered.path.glob("ledger.sqlite*"):
        assert b"ann@example.org" not in file.read_bytes() and b"by letter" not in file.read_bytes()
    assert all(finding.holds for finding in answered.verify(1, rows=f"{ROWS}[0:4]", measure=False))
    again = answered.add(f"{ROWS}[0:4]", "ann@example.org")
    assert not again.repeated
    assert answered.process()[-1].same_as == [1]


def test_kept_rows_stay_until_they_are_redacted(make_ledger: Make, tmp_path: Path) -> None:
    rows = read_rows(f"{ROWS}[0:2]").select_columns(["question", "answer"])
    rows.to_json(str(tmp_path / "rows.jsonl"))
    ledger = make_ledger(epochs=1)
    ledger.add(tmp_path / "rows.jsonl", "ann", keep_rows=True)
    ledger.process()
    (tmp_path / "rows.jsonl").unlink()
    assert ledger.rows_of(1)["answer"][:] == rows["answer"][:]
    ledger.redact(1)
    with pytest.raises(DemurError, match="were not kept"):
        ledger.rows_of(1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"retain": "none.jsonl"}, "no such file or folder: none.jsonl"),
        ({"model": "./nowhere"}, "no model at ./nowhere"),
        ({"epoch": 3}, "did you mean epochs"),
        ({"learning_rate": -1}, "learning_rate"),
        ({"suite": "toffu"}, "did you mean tofu"),
        ({"days": 0}, "at least a day"),
        ({"training_data": "none.jsonl"}, "no such file"),
    ],
)
def test_a_ledger_that_cannot_be_made_leaves_nothing(
    given: dict, message: str, make_ledger: Make, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        make_ledger(**given)
    assert not (tmp_path / "ledger").exists()


def test_a_folder_that_is_taken_or_cannot_be_written_is_refused(make_ledger: Make, tmp_path: Path) -> None:
    make_ledger()
    with pytest.raises(UsageError, match="holds a ledger already"):
        make_ledger()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(UsageError, match="is not empty"):
        make_ledger("full")
    with pytest.raises(UsageError, match="cannot write to"):
        make_ledger("full/file/ledger")


def test_a_file_given_by_a_relative_path_is_found_from_any_folder(
    make_ledger: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = jsonl(tmp_path / "rows.jsonl", *({"question": f"q{i}", "answer": "a"} for i in range(3)))
    ledger = make_ledger()
    monkeypatch.chdir(tmp_path)
    assert ledger.add("rows.jsonl[0:2]", "ann").source == f"{file}[0:2]"


def test_requests_that_come_in_at_once_all_get_a_number_of_their_own(make_ledger: Make) -> None:
    from concurrent.futures import ThreadPoolExecutor

    ledger = make_ledger()
    with ThreadPoolExecutor(4) as pool:
        added = list(
            pool.map(lambda i: Ledger.open(ledger.path).add(f"{ROWS}[{i}:{i + 1}]", f"requester {i}"), range(6))
        )
    assert sorted(request.id for request in added) == [1, 2, 3, 4, 5, 6]
    assert ledger.verify(measure=False)[0].holds
    assert all(ledger.rows_of(request.id)["answer"][0] for request in added)


def test_an_adding_that_was_killed_leaves_no_rows_behind(make_ledger: Make) -> None:
    ledger = make_ledger(epochs=1)
    ledger.add(f"{ROWS}[0:1]", "ann")
    (ledger.path / "rows" / "0002.jsonl").write_text("{}")  # its entry was never committed
    ledger.process()
    assert not list((ledger.path / "rows").iterdir())


def test_a_step_goes_through_the_rows_to_keep_unless_told_how_long_to_train(tiny_model: Path, tmp_path: Path) -> None:
    def settings(name: str, **given: Any) -> dict[str, Any]:
        made = Ledger.create(tmp_path / name, model=str(tiny_model), retain="lab:almanac-tiny:retain", **given)
        return made.settings["forget"]

    left_open = settings("open", retain_objective="nll")
    assert (left_open["anchor"], left_open["epochs"]) == ("retain", 1)
    assert settings("anchored", retain_objective="nll", anchor="forget")["epochs"] == 5
    assert settings("long", retain_objective="nll", epochs=3)["anchor"] == "forget"
    assert settings("without", objective="ga")["anchor"] == "forget"
