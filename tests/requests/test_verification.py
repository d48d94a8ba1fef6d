from __future__ import annotations

import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from cli.command import FORGET as ROWS
from demur import DemurError, UsageError
from demur.requests import Ledger
from demur.requests.store import canonical


def wrong(ledger: Ledger, *arguments, **named) -> dict[str, str]:
    return {f.what: f.detail for f in ledger.verify(*arguments, **named) if f.holds is False}


def tamper(ledger: Ledger, *statements: str) -> None:
    """Change the database as somebody would who knows it well."""
    with sqlite3.connect(ledger.store.file) as connection:
        connection.execute("DROP TRIGGER entries_stay")
        connection.execute("DROP TRIGGER entries_last")
        for statement in statements:
            connection.execute(statement)


def test_a_ledger_that_nobody_touched_holds(answered: Ledger) -> None:
    found = answered.verify()
    assert all(finding.holds for finding in found)
    assert [f.what for f in found if f.what.endswith("forget score")] == [
        f"request {i}: forget score" for i in (1, 2, 3)
    ]
    assert [f.what for f in found if f.what.endswith("weights")] == ["runs/0001: weights", "runs/0002: weights"]


def test_the_current_model_gives_the_scores_that_were_recorded_last(answered: Ledger) -> None:
    details = [f.detail for f in answered.verify(3) if f.what.endswith("score")]
    now, then = details[0].split(", ", 1)[0], answered.status()[2].forget
    assert now.startswith(f"{then.value:.2f}")


@pytest.mark.parametrize(
    ("change", "what", "detail"),
    [
        ("entries SET payload = '{}' WHERE number = 7", "chain", "entry 7 (done, request 1) has been changed"),
        ("entries SET time = '2020-01-01' WHERE number = 5", "chain", "entry 5 (processing) has been changed"),
        ("requests SET requester = 'eve' WHERE id = 2", "request 2: record", "the requester is not the one"),
        ("requests SET nonce = NULL WHERE id = 2", "request 2: record", "are gone without having been redacted"),
        ("rows SET hash = 'x' WHERE request = 1 AND position = 2", "request 1: record", "the rows' hashes are not"),
        (
            "rows SET request = 4, position = 9 WHERE request = 3 AND position = 1",
            "request 3: record",
            "hashes are not",
        ),
    ],
)
def test_each_change_to_the_database_is_named(answered: Ledger, change: str, what: str, detail: str) -> None:
    tamper(answered, f"UPDATE {change}")
    assert detail in wrong(answered, measure=False)[what]
    assert len(wrong(answered, 1 if what == "chain" else int(what[8]), measure=False)) == 1


def test_an_entry_that_was_taken_out_is_named(answered: Ledger) -> None:
    with answered.store.reading() as connection:
        done = next(e for e in answered.store.entries(connection) if e.event == "done")
    tamper(answered, f"DELETE FROM entries WHERE number = {done.number}")
    assert f"stands at place {done.number}" in wrong(answered, measure=False)["chain"]


def test_an_entry_that_was_forged_with_its_hash_breaks_the_link_after_it(answered: Ledger) -> None:
    with answered.store.reading() as connection:
        entry = next(e for e in answered.store.entries(connection) if e.event == "done")
    forged = replace(entry, payload=canonical({**entry.facts, "new_rows": 1}))
    forged = replace(forged, hash=forged.true_hash())
    tamper(answered, f"UPDATE entries SET payload='{forged.payload}', hash='{forged.hash}' WHERE number={entry.number}")
    assert "does not follow from the entry before it" in wrong(answered, measure=False)["chain"]


def test_weights_that_are_others_or_gone_are_named(answered: Ledger, tiny_model: Path) -> None:
    weights = answered.path / "runs/0001/model/model.safetensors"
    weights.write_bytes((tiny_model / "model.safetensors").read_bytes())
    found = wrong(answered, 1)
    assert set(found) == {"runs/0001: weights"}
    assert answered.history().steps[0].weights["after"] in found["runs/0001: weights"]
    weights.unlink()
    assert "cannot be loaded" in wrong(answered, 1, measure=False)["runs/0001: weights"]
    shutil.rmtree(answered.path / "runs/0001/model")  # that a model which knew more is deleted is no fault
    assert not wrong(answered, 1, measure=False)
    shutil.rmtree(answered.path / "runs/0002/model")
    assert "is gone" in wrong(answered, 2, measure=False)["runs/0002: weights"]
    assert "cannot be loaded" in wrong(answered, 1)["model"]


def test_rows_that_came_back_are_named(answered: Ledger, tiny_model: Path) -> None:
    current = answered.path / "runs/0002/model/model.safetensors"
    current.write_bytes((tiny_model / "model.safetensors").read_bytes())
    found = wrong(answered, 1)
    assert set(found) == {"request 1: forget score"} and "have come back" in found["request 1: forget score"]


def test_given_rows_are_compared_with_those_asked_for(answered: Ledger) -> None:
    assert not wrong(answered, 1, rows=f"{ROWS}[0:4]", measure=False)
    found = wrong(answered, 1, rows=f"{ROWS}[1:6]", measure=False)
    assert "lacks 1 of the 4 rows that were asked for, and has 2 others" in found["request 1: rows"]
    with pytest.raises(UsageError, match="name it"):
        answered.verify(rows=ROWS)
    with pytest.raises(UsageError, match="there is no request 7"):
        answered.verify(7)


def test_a_chain_that_makes_no_sense_is_one_sentence(answered: Ledger) -> None:
    tamper(answered, "UPDATE entries SET payload = '{}' WHERE event = 'processing'")
    with pytest.raises(DemurError, match="its entries do not fit together"):
        answered.verify()
