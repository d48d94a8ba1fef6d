"""Whether everything is as the ledger says: its chain, the weights on disk, rows, and what the model forgot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from demur.errors import DemurError, UsageError
from demur.requests.history import FORGET, History
from demur.requests.rows import row_hashes, rows_digest
from demur.requests.store import PERSONAL, Entry, commitment
from demur.requests.verdict import resurged

if TYPE_CHECKING:
    from demur.requests.ledger import Ledger

__all__ = ["Finding", "chain_problems", "verify"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: the thing.
        holds: whether it is as the ledger says; None where it could not be looked at.
        detail: what was found.
    """

    what: str
    holds: bool | None
    detail: str


def verify(
    ledger: Ledger, number: int | None = None, *, rows: str | None = None, measure: bool = True
) -> list[Finding]:
    """Look at everything again.

    Args:
        ledger: the ledger.
        number: only what concerns this request, beside the chain; all by default.
        rows: rows to compare with those that the request asked for.
        measure: measure the forget scores on the model as it stands.

    Returns:
        What was found; nothing was changed.

    Raises:
        UsageError: there is no such request, or rows are given without one.
    """
    with ledger.store.reading() as connection:
        entries = ledger.store.entries(connection)
        personal, hashes = ledger.store.personal(connection), ledger.store.hashes(connection)
        integrity = [str(row[0]) for row in connection.execute("PRAGMA quick_check")]
    broken = [] if integrity == ["ok"] else [f"the database is damaged: {integrity[0]}"]
    broken += chain_problems(entries)
    found = [Finding("chain", False, problem) for problem in broken]
    if not broken:
        found.append(Finding("chain", True, f"{len(entries)} entries, the last is {entries[-1].hash}"))
    past = ledger.history()
    chosen = list(past.requests) if number is None else [ledger.request(number, past).id]
    found += [_recorded(entries, request, personal.get(request, {}), hashes.get(request, [])) for request in chosen]
    if rows is not None:
        if number is None:
            raise UsageError("rows are compared with those of one request: name it")
        found.append(_same_rows(past, number, rows, hashes[number]))
    found += _weights(ledger, past, chosen)
    if measure:
        found += _scores(ledger, past, chosen)
    return found


def chain_problems(entries: Sequence[Entry]) -> list[str]:
    """What is wrong with a chain, a sentence each."""
    out = []
    previous = ""
    for place, entry in enumerate(entries, 1):
        name = f"entry {entry.number} ({entry.event}{f', request {entry.request}' if entry.request else ''})"
        if entry.number != place:
            out.append(f"{name} stands at place {place}: an entry has been removed or added")
            break
        if entry.true_hash() != entry.hash:
            out.append(f"{name} has been changed: its hash is not that of its content")
        if entry.previous != previous:
            out.append(f"{name} does not follow from the entry before it")
        previous = entry.hash
    return out


def _recorded(
    entries: Sequence[Entry], request: int, personal: dict[str, str | None], hashes: Sequence[str]
) -> Finding:
    """Whether the rows' hashes and the personal fields are those that the chain committed to."""
    what = f"request {request}: record"
    facts = next(e.facts for e in entries if e.event == "received" and e.request == request)
    problems = []
    if rows_digest(hashes) != facts["rows_digest"] or len(hashes) != facts["rows"]:
        problems.append("the rows' hashes are not those that were put down")
    nonce = personal.get("nonce")
    redacted = any(e.event == "redacted" and e.request == request for e in entries)
    if nonce is None and not redacted:
        problems.append("requester, reason, note and source are gone without having been redacted")
    problems += [
        f"the {name} is not the one that was put down"
        for name in (PERSONAL if nonce is not None else ())
        if commitment(nonce or "", name, personal[name]) != facts["commitments"][name]
    ]
    detail = f"{len(hashes)} rows, as put down{'; redacted' if redacted else ''}"
    return Finding(what, not problems, "; ".join(problems) or detail)


def _same_rows(past: History, number: int, source: str, hashes: Sequence[str]) -> Finding:
    from demur.data import read_rows

    given = set(row_hashes(read_rows(source), past.salt))
    missing, more = len(set(hashes) - given), len(given - set(hashes))
    detail = f"{source} holds the {len(hashes)} rows that were asked for"
    if missing or more:
        detail = f"{source} lacks {missing} of the {len(hashes)} rows that were asked for, and has {more} others"
    return Finding(f"request {number}: rows", not (missing or more), detail)


def _weights(ledger: Ledger, past: History, chosen: Sequence[int]) -> list[Finding]:
    """The weights on disk against the hashes of the steps that left them."""
    from demur.requests.processing import load_standing

    out = []
    for step in past.finished:
        if step.run is None or not set(step.requests) & set(chosen):
            continue
        what = f"{step.run}: weights"
        if not (ledger.path / str(step.model)).is_dir():
            current = step.model == past.model
            detail = (
                "the model as it stands is gone" if current else "the model is gone; a later one stands in its place"
            )
            out.append(Finding(what, False if current else None, f"{detail} ({step.model})"))
            continue
        try:
            found = load_standing(
                ledger, step.model, ledger.forget_settings(step.settings, forget="rows")
            ).weights_hash()
        except (DemurError, OSError, RuntimeError) as error:
            out.append(Finding(what, False, f"cannot be loaded: {error}"))
            continue
        same = found == step.weights["after"]
        out.append(Finding(what, same, found if same else f"{found}, but {step.weights['after']} was recorded"))
    return out


def _scores(ledger: Ledger, past: History, chosen: Sequence[int]) -> list[Finding]:
    """The forget scores on the model as it stands, against those that were recorded."""
    from demur.reports import interval
    from demur.requests.processing import load_standing
    from demur.requests.scoring import measured

    done = [request for number in chosen if (request := past.requests[number]).state == "done"]
    out: list[Finding] = []
    rows = {}
    for request in done:
        try:
            rows[request.id] = ledger.rows_of(request.id)
        except DemurError as error:
            out.append(Finding(f"request {request.id}: forget score", None, f"not measured: {error}"))
    if not rows:
        return out
    settings = ledger.forget_settings({}, forget="rows")
    try:
        lm = load_standing(ledger, past.model, settings)
    except (DemurError, OSError, RuntimeError) as error:
        return [*out, Finding("model", False, f"the model as it stands cannot be loaded: {error}")]
    for found in measured(lm, rows, None, chunk_length=settings.chunk_length):
        assert found.request is not None
        step = past.step(past.requests[found.request].step)
        recorded = step.measure(FORGET, found.request) if step else None
        assert recorded is not None
        back = resurged(recorded, found)
        now = f"{interval(found.value, found.low, found.high)} now"
        then = f"{interval(recorded.value, recorded.low, recorded.high)} was recorded"
        detail = f"{now}, {then}{': the rows have come back' if back else ''}"
        out.append(Finding(f"request {found.request}: forget score", not back, detail))
    return out
