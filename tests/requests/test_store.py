from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demur import DemurError, UsageError
from demur.requests.store import FILE, SCHEMA, Entry, Store, canonical, commitment, digest
from demur.requests.verification import chain_problems


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path)
    store.create({"model": "m"})
    return store


def made_chain(payloads: list[str]) -> list[Entry]:
    chain: list[Entry] = []
    for number, payload in enumerate(payloads, 1):
        previous = chain[-1].hash if chain else ""
        blank = Entry(number, "2026-01-01T00:00:00+00:00", None, "created", payload, previous, "")
        chain.append(replace(blank, hash=blank.true_hash()))
    return chain


FIELDS = {"number": 99, "time": "later", "request": 7, "event": "done", "payload": "{}", "previous": "0", "hash": "0"}


@given(st.lists(st.text(), min_size=1, max_size=6), st.data())
def test_any_one_change_to_a_chain_is_seen(payloads: list[str], data: st.DataObject) -> None:
    chain = made_chain([canonical(["x", payload]) for payload in payloads])
    assert chain_problems(chain) == []
    place = data.draw(st.integers(0, len(chain) - 1))
    name = data.draw(st.sampled_from(sorted(FIELDS)))
    changed = [*chain[:place], replace(chain[place], **{name: FIELDS[name]}), *chain[place + 1 :]]
    assert chain_problems(changed)
    if place < len(chain) - 1:
        assert chain_problems([*chain[:place], *chain[place + 1 :]])  # an entry removed
        assert chain_problems([*chain[:place], chain[place + 1], chain[place], *chain[place + 2 :]])
        # A forger who hashes the changed entry anew breaks the link that follows it.
        forged = replace(chain[place], payload="{}")
        forged = replace(forged, hash=forged.true_hash())
        assert chain_problems([*chain[:place], forged, *chain[place + 1 :]])


def test_canonical_text_does_not_depend_on_key_order_and_refuses_what_is_no_number() -> None:
    assert canonical({"b": 1, "a": [0.1, None]}) == canonical({"a": [0.1, None], "b": 1}) == '{"a":[0.1,null],"b":1}'
    with pytest.raises(ValueError):
        canonical(float("nan"))


def test_a_commitment_needs_its_nonce() -> None:
    assert commitment("n", "note", "x") == digest(["n", "note", "x"])
    assert commitment("m", "note", "x") != commitment("n", "note", "x") != commitment("n", "reason", "x")


def test_entries_can_be_neither_changed_nor_removed(store: Store) -> None:
    for statement in ("UPDATE entries SET payload = '{}'", "DELETE FROM entries"):
        with pytest.raises(DemurError, match="entries are never"), store.writing() as connection:
            connection.execute(statement)
    with store.reading() as connection:
        assert len(store.entries(connection)) == 1


def test_a_request_has_one_outcome_at_most(store: Store) -> None:
    with store.writing() as connection:
        request, _ = store.add_request(connection, dict.fromkeys(("requester", "reason", "note", "source"), "x"), ["h"])
        store.append(connection, "done", {}, request)
    for event in ("done", "rejected"):
        with pytest.raises(DemurError), store.writing() as connection:
            store.append(connection, event, {}, request)


def test_what_fails_half_way_leaves_nothing(store: Store) -> None:
    with pytest.raises(RuntimeError), store.writing() as connection:
        store.append(connection, "done", {})
        raise RuntimeError
    with store.reading() as connection:
        assert [entry.event for entry in store.entries(connection)] == ["created"]


def test_a_second_ledger_in_the_same_folder_is_refused(store: Store) -> None:
    with pytest.raises(UsageError, match="holds a ledger already"):
        store.create({})


def test_a_database_of_another_kind_or_of_a_newer_demur_is_refused(store: Store, tmp_path: Path) -> None:
    with sqlite3.connect(store.file) as connection:
        connection.execute(f"PRAGMA user_version={SCHEMA + 1}")
    with pytest.raises(UsageError, match="newer demur"), store.reading():
        pass
    other = tmp_path / "other"
    other.mkdir()
    with sqlite3.connect(other / FILE) as connection:
        connection.execute("CREATE TABLE t (x)")
    with pytest.raises(UsageError, match=r"is no ledger of demur's"), Store(other).reading():
        pass
    with pytest.raises(UsageError, match="demur requests init"), Store(tmp_path / "none").reading():
        pass


@pytest.mark.parametrize("damage", ["garbage", "middle", "empty"])
def test_a_damaged_database_is_one_sentence(store: Store, damage: str) -> None:
    for suffix in ("-wal", "-shm"):
        store.file.with_name(store.file.name + suffix).unlink(missing_ok=True)
    data = bytearray(store.file.read_bytes())
    data[100 if damage == "middle" else 0 :] = b"" if damage == "empty" else b"\xa5" * (len(data) - 100)
    store.file.write_bytes(data)
    with pytest.raises(DemurError, match=r"is damaged|is no ledger") as caught, store.reading() as connection:
        store.entries(connection)
    assert "\n" not in str(caught.value)


def test_deleted_personal_data_is_overwritten_in_the_files(store: Store) -> None:
    secret = "Ottilie Unmistakable"
    names = ("requester", "reason", "note", "source")
    with store.writing() as connection:
        request, _ = store.add_request(connection, dict.fromkeys(names, secret), ["h"])
    with store.writing() as connection:
        store.forget_personal(connection, request)
    store.flush()
    for file in store.file.parent.iterdir():
        assert secret.encode() not in file.read_bytes(), file
