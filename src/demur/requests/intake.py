"""Putting down a request: times, rows and what is known of them are checked before anything is written."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from datetime import time as daytime
from pathlib import Path
from typing import TYPE_CHECKING

from demur.errors import UsageError
from demur.requests.history import History, Request
from demur.requests.rows import row_hashes, rows_digest, write_rows
from demur.requests.store import now
from demur.requests.verdict import settled

if TYPE_CHECKING:
    from datasets import Dataset

    from demur.requests.ledger import Ledger

__all__ = ["add", "distinct", "lasting_source"]


def add(
    ledger: Ledger,
    source: str,
    requester: str,
    deadline: str | datetime | None,
    received: str | datetime | None,
    days: int | None,
    reason: str | None,
    note: str | None,
    keep_rows: bool,
) -> Request:
    """See `Ledger.add`."""
    from demur.data import is_text, question_answer, read_rows

    past = ledger.history()
    came, ends = _times(received, deadline, days or past.settings["days"])
    requester = requester.strip()
    if not requester:
        raise UsageError("a request needs a requester: say who asks")
    wanted, hashes = distinct(read_rows(source), past.salt)
    if not (texts := is_text(wanted)):
        question_answer(wanted)
    digest = rows_digest(hashes)
    retained = set(row_hashes(read_rows(past.settings["retain"]), past.salt))
    unknown = _unknown(hashes, past)
    personal = {"requester": requester, "reason": reason, "note": note, "source": lasting_source(source)}
    with ledger.store.writing() as connection:
        past = ledger.history(connection)
        for known in past.requests.values():
            same = (known.rows_digest, known.requester) == (digest, requester)
            if same and (settled(past, known) or known.state not in ("done", "rejected")):
                known.repeated = True
                return known
        _leave_something(past, ledger.store.hashes(connection), {*hashes}, retained, source)
        request, commitments = ledger.store.add_request(connection, personal, hashes)
        facts = {
            "received": came.isoformat(),
            "deadline": ends.isoformat(),
            "rows": len(hashes),
            "rows_digest": digest,
            "texts": texts,
            "keep_rows": keep_rows,
            "unknown": unknown,
            "commitments": commitments,
        }
        ledger.store.append(connection, "received", facts, request)
        write_rows(ledger.rows_file(request), [(str(request), wanted, range(len(wanted)))])
        return ledger.history(connection).requests[request]


def distinct(rows: Dataset, salt: str) -> tuple[Dataset, list[str]]:
    """The rows without those that say what an earlier one said, and their hashes."""
    hashes = row_hashes(rows, salt)
    first = sorted({value: place for place, value in reversed(list(enumerate(hashes)))}.values())
    return rows.select(first), [hashes[place] for place in first]


def lasting_source(source: str | None) -> str | None:
    """A source that means the same from any folder: the path of a file is made absolute."""
    if source is None:
        return None
    name, bracket, window = source.rpartition("[") if source.endswith("]") else (source, "", "")
    path = Path(name).expanduser()
    return f"{path.resolve()}{bracket}{window}" if path.exists() else source


def _times(received: str | datetime | None, deadline: str | datetime | None, days: int) -> tuple[datetime, datetime]:
    at = now()
    came = at if received is None else _moment(received, "received")
    ends = came + timedelta(days=days) if deadline is None else _moment(deadline, "deadline")
    if came > at:
        raise UsageError(f"a request cannot have been received in the future ({came.isoformat()})")
    if ends <= at:
        raise UsageError(f"the deadline {ends.isoformat()} has passed already: give a later one")
    return came, ends


def _moment(value: str | datetime, what: str) -> datetime:
    """A time in UTC; a date means its end for a deadline, and its beginning for a receipt."""
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            raise UsageError(f"{what} {value!r} is no date: write for instance 2026-12-31") from None
        if len(value) == len("2026-12-31") and what == "deadline":
            moment = datetime.combine(moment, daytime(23, 59, 59))
    else:
        moment = value
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC).replace(microsecond=0)


def _unknown(hashes: list[str], past: History) -> list[int] | None:
    """Places of the rows that are not in the known training data; None where that is not known."""
    from demur.data import read_rows

    source = past.settings["training_data"]
    if source is None:
        return None
    trained = set(row_hashes(read_rows(source), past.salt))
    return [place for place, value in enumerate(hashes, 1) if value not in trained]


def _leave_something(
    past: History, asked: Mapping[int, list[str]], hashes: set[str], retained: set[str], source: str
) -> None:
    gone = {h for r in past.requests.values() if r.state != "rejected" for h in asked[r.id]}
    if not retained - gone - hashes:
        raise UsageError(
            f"{source} holds all rows that are left to keep: nothing would remain of {past.settings['retain']}"
        )
