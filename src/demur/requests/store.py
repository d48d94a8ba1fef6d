"""The ledger's database: an append-only chain of entries, in which each entry's hash includes the one before it.

Everything that happened to a request is an entry; its state is what its entries say. Beside the chain stand only what
must be forgettable (who asked, why, where the rows were; the chain holds commitments to them) and the rows' hashes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from demur.errors import DemurError, UsageError

__all__ = ["FILE", "PERSONAL", "SCHEMA", "Entry", "Store", "canonical", "commitment", "digest", "now"]

FILE = "ledger.sqlite"
SCHEMA = 1
PERSONAL = ("requester", "reason", "note", "source")
"""What the chain holds only commitments to, so that it can be redacted."""

_APPLICATION = 0x64656D75  # "demu": tells a ledger from any other database
_TABLES = """
CREATE TABLE requests (
    id INTEGER PRIMARY KEY,
    requester TEXT, reason TEXT, note TEXT, source TEXT,
    nonce TEXT
);
CREATE TABLE rows (
    request INTEGER NOT NULL REFERENCES requests (id),
    position INTEGER NOT NULL,
    hash TEXT NOT NULL,
    PRIMARY KEY (request, position)
) WITHOUT ROWID;
CREATE INDEX rows_by_hash ON rows (hash);
CREATE TABLE entries (
    number INTEGER PRIMARY KEY,
    time TEXT NOT NULL,
    request INTEGER REFERENCES requests (id),
    event TEXT NOT NULL,
    payload TEXT NOT NULL,
    previous TEXT NOT NULL,
    hash TEXT NOT NULL UNIQUE
);
CREATE UNIQUE INDEX one_outcome ON entries (request) WHERE event IN ('done', 'rejected');
CREATE TRIGGER entries_stay BEFORE UPDATE ON entries BEGIN SELECT RAISE(ABORT, 'entries are never changed'); END;
CREATE TRIGGER entries_last BEFORE DELETE ON entries BEGIN SELECT RAISE(ABORT, 'entries are never removed'); END;
"""


def now() -> datetime:
    """The time in UTC, in whole seconds."""
    return datetime.now(UTC).replace(microsecond=0)


def canonical(value: Any) -> str:
    """A JSON value as its one canonical text: sorted keys, no white space, no rounding."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def digest(value: Any) -> str:
    """SHA-256 (hex) of a JSON value's canonical text."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def commitment(nonce: str, name: str, value: str | None) -> str:
    """What the chain holds in place of a personal field; says nothing about it once the nonce is gone."""
    return digest([nonce, name, value])


@dataclass(frozen=True)
class Entry:
    """A link of the chain.

    Attributes:
        number: its place, counted from 1.
        time: when it was written, ISO 8601 in UTC.
        request: the request it is about; None where it is about the ledger or a step of several requests.
        event: created, received, processing, finished, done, failed, rejected or redacted.
        payload: what there is to say, as JSON text.
        previous: hash of the entry before; empty for the first.
        hash: SHA-256 of all of the above.
    """

    number: int
    time: str
    request: int | None
    event: str
    payload: str
    previous: str
    hash: str

    @property
    def facts(self) -> dict[str, Any]:
        """The payload's values by name."""
        return dict(json.loads(self.payload))

    def true_hash(self) -> str:
        """The hash that the entry's content has."""
        return digest([self.number, self.time, self.request, self.event, self.payload, self.previous])


class Store:
    """The database of one ledger.

    Args:
        folder: the ledger's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / FILE

    def create(self, settings: Mapping[str, Any]) -> None:
        """Make the database with its first entry; killed half-way it is not there.

        Raises:
            UsageError: there is one already, or it cannot be written.
        """
        if self.file.exists():
            raise UsageError(f"{self.file.parent} holds a ledger already: add requests to it, or choose another folder")
        temporary = self.file.with_name(f".{FILE}.{secrets.token_hex(4)}.partial")
        try:
            with self._translated():
                self.file.parent.mkdir(parents=True, exist_ok=True)
                with contextlib.closing(sqlite3.connect(temporary, isolation_level=None)) as connection:
                    connection.execute(
                        "PRAGMA journal_mode=WAL"
                    )  # stays; to change it later would need all others gone
                    connection.executescript(
                        f"BEGIN; PRAGMA application_id={_APPLICATION}; PRAGMA user_version={SCHEMA}; {_TABLES} COMMIT;"
                    )
                    self.append(connection, "created", {"salt": secrets.token_hex(16), "settings": dict(settings)})
                temporary.rename(self.file)
        finally:
            for left in temporary.parent.glob(f"{temporary.name}*"):
                left.unlink()

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection to read with, all of it from one moment."""
        with self._connection() as connection:
            connection.execute("BEGIN")
            yield connection
            connection.execute("COMMIT")

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A connection to write with, alone; what was written counts when the block ends well, else nothing does."""
        with self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        if not self.file.is_file():
            raise UsageError(f"{self.file.parent} holds no ledger: make one with demur requests init")
        with self._translated(), contextlib.closing(sqlite3.connect(self.file, timeout=30)) as connection:
            connection.isolation_level = None
            found = connection.execute("PRAGMA user_version").fetchone()[0]
            if connection.execute("PRAGMA application_id").fetchone()[0] != _APPLICATION:
                raise UsageError(f"{self.file} is no ledger of demur's")
            if found > SCHEMA:
                raise UsageError(
                    f"{self.file} was written by a newer demur (schema {found}, this one knows {SCHEMA}): update demur"
                )
            for pragma in ("synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
                connection.execute(f"PRAGMA {pragma}")
            yield connection

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            if "locked" in str(error) or "busy" in str(error):
                raise DemurError(f"{self.file} is in use by another process: try again in a moment") from error
            if "full" in str(error):
                raise DemurError(
                    f"the disk is full: free some space and run the same command again ({error})"
                ) from error
            raise UsageError(f"cannot write to the ledger {self.file.parent}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise DemurError(f"{self.file} is damaged ({error}): put a copy of the ledger in its place") from error
        except OSError as error:
            raise UsageError(f"cannot write to the ledger {self.file.parent}: {error.strerror or error}") from error

    def flush(self) -> None:
        """Overwrite what was deleted in the write-ahead log too."""
        with self._connection() as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    @staticmethod
    def append(
        connection: sqlite3.Connection, event: str, facts: Mapping[str, Any], request: int | None = None
    ) -> Entry:
        """Add an entry to the end of the chain."""
        last = connection.execute("SELECT number, hash FROM entries ORDER BY number DESC LIMIT 1").fetchone()
        number, previous = (last[0] + 1, last[1]) if last else (1, "")
        blank = Entry(number, now().isoformat(), request, event, canonical(facts), previous, "")
        entry = replace(blank, hash=blank.true_hash())
        connection.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?)", list(vars(entry).values()))
        return entry

    @staticmethod
    def entries(connection: sqlite3.Connection) -> list[Entry]:
        """The whole chain, in order."""
        return [Entry(*row) for row in connection.execute("SELECT * FROM entries ORDER BY number")]

    @staticmethod
    def personal(connection: sqlite3.Connection) -> dict[int, dict[str, str | None]]:
        """By request: requester, reason, note, source and the nonce of their commitments; None once redacted."""
        names = ("id", *PERSONAL, "nonce")
        found = connection.execute(f"SELECT {', '.join(names)} FROM requests ORDER BY id")
        return {row[0]: dict(zip(names[1:], row[1:], strict=True)) for row in found}

    @staticmethod
    def hashes(connection: sqlite3.Connection) -> dict[int, list[str]]:
        """By request: its rows' hashes, in the rows' order."""
        out: dict[int, list[str]] = {}
        for request, value in connection.execute("SELECT request, hash FROM rows ORDER BY request, position"):
            out.setdefault(request, []).append(value)
        return out

    @staticmethod
    def add_request(
        connection: sqlite3.Connection, personal: Mapping[str, str | None], hashes: Sequence[str]
    ) -> tuple[int, dict[str, str]]:
        """Put down who asked for which rows; returns the request's number and the commitments to what is personal."""
        nonce = secrets.token_hex(16)
        values = [personal[name] for name in PERSONAL]
        cursor = connection.execute(
            f"INSERT INTO requests ({', '.join(PERSONAL)}, nonce) VALUES (?, ?, ?, ?, ?)", [*values, nonce]
        )
        request = int(cursor.lastrowid or 0)
        connection.executemany(
            "INSERT INTO rows VALUES (?, ?, ?)", [(request, place, value) for place, value in enumerate(hashes, 1)]
        )
        return request, {name: commitment(nonce, name, personal[name]) for name in PERSONAL}

    @staticmethod
    def forget_personal(connection: sqlite3.Connection, request: int) -> None:
        """Delete a request's personal fields; the chain's commitments to them can no longer be opened."""
        cleared = ", ".join(f"{name} = NULL" for name in (*PERSONAL, "nonce"))
        connection.execute(f"UPDATE requests SET {cleared} WHERE id = ?", [request])
