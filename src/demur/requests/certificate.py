"""The certificate of an answered request: what was asked, what was done, and how it was measured, for both sides.

A JSON file whose content has one canonical form and carries its own SHA-256 and, with a key, an HMAC-SHA256 (RFC 2104);
and the same as a page. Neither holds the text of a row.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import demur
from demur.errors import UsageError
from demur.files import atomic_write
from demur.requests.history import FORGET, OWN_SUITE, UTILITY, History, Measure, Request, Step
from demur.requests.store import canonical, now
from demur.requests.verdict import judge

if TYPE_CHECKING:
    from demur.requests.ledger import Ledger

__all__ = ["LIMITS", "certificate_facts", "verify_certificate", "write_certificate"]

_KIND = "demur deletion certificate"
_VERSION = 1

LIMITS = (
    "The measure looks at how likely the model finds the very answers that were to be forgotten. It cannot show that "
    "the model holds no trace of them: they may come back when the question is put in other words, when the model is "
    "trained further, or when its inner states are read out.",
    "It says nothing about other copies: the data themselves, backups, the model as it was before, models made from "
    "it, and texts that it wrote.",
    "The interval says how far the number might move with other rows of the same kind (95 %, bootstrap); with few rows "
    "it says little, and with one row there is none.",
    "The rows are named here by one hash of what they say, without case and spacing. Whoever has the rows can find out "
    "whether they are the ones; whoever guesses all of them can too.",
    "The hashes show that the record has not been changed since. That what was recorded is what was done has to be "
    "seen from the ledger and the model, which the commands below check.",
)
"""What a certificate cannot show, in words."""


def certificate_facts(ledger: Ledger, number: int) -> dict[str, Any]:
    """What a certificate says, as JSON values.

    Raises:
        UsageError: there is no such request, or it is not answered.
    """
    past = ledger.history()
    request = ledger.request(number, past)
    if request.open:
        raise UsageError(f"request {number} is {request.state}: a certificate is given once it is answered")
    assert request.finished is not None
    facts: dict[str, Any] = {
        "kind": _KIND,
        "version": _VERSION,
        "issued": now().isoformat(),
        "demur": demur.__version__,
        "request": {
            "id": request.id,
            "requester": request.requester,
            "reason": request.reason,
            "received": request.received.isoformat(),
            "deadline": request.deadline.isoformat(),
            "answered": request.finished.isoformat(),
            "on_time": request.on_time,
            "rows": request.rows,
            "rows_sha256": request.rows_digest,
            "salt": past.salt,
            "rows_not_in_training_data": None if request.unknown is None else len(request.unknown),
            "redacted": request.redacted,
        },
        "outcome": request.state,
        "explanation": request.explanation,
        "chain": {"entry": request.entry, "head": past.head},
    }
    step = past.step(request.step)
    if request.state == "done" and step is not None:
        verdict = judge(past, request)
        assert verdict is not None
        facts |= {"done": _done(past, request, step), "measured": _measured(past, request, step)}
        facts["finding"] = asdict(verdict)
        facts["limits"] = list(LIMITS)
    return facts


def _done(past: History, request: Request, step: Step) -> dict[str, Any]:
    settings = {**past.settings["forget"], **step.settings}
    method = {"objective": settings["objective"], "settings": settings} if step.run is not None else None
    return {
        "model": past.settings["model"],
        "method": method,
        "new_rows": request.new_rows,
        "rows_of_earlier_requests": request.rows - request.new_rows,
        "earlier_requests": request.same_as,
        "rows_to_keep": step.retained,
        "step": step.number,
        "run": step.run,
        "weights_sha256": step.weights,
        "versions": step.versions,
        "seconds": step.seconds,
    }


def _measured(past: History, request: Request, step: Step) -> dict[str, Any]:
    suite = [m for m in step.measures if m.suite != OWN_SUITE]
    return {
        "forget_score": {
            role: _number(step.measure(FORGET, request.id, role)) for role in ("before", "run", "reference")
        },
        "forget_score_later": [
            {"step": number, **_known(measure)}
            for number, measure in past.forget_scores(request.id)
            if number > step.number
        ],
        "utility": {
            "before": _number(_utility_before(past, step)),
            "run": _number(step.measure(UTILITY)),
            "reference": _number(step.measure(UTILITY, role="reference")),
        },
        "suite": [asdict(m) for m in suite],
    }


def _utility_before(past: History, step: Step) -> Measure | None:
    earlier = [s for s in past.finished if s.number < step.number]
    return earlier[-1].measure(UTILITY) if earlier else step.measure(UTILITY, role="before")


def _number(measure: Measure | None) -> dict[str, Any] | None:
    return None if measure is None else _known(measure)


def _known(measure: Measure) -> dict[str, Any]:
    return {"value": measure.value, "low": measure.low, "high": measure.high, "n": measure.n}


def write_certificate(ledger: Ledger, number: int, out: str | Path, key: str | Path | None = None) -> Path:
    """Write a request's certificate as JSON and as a page.

    Args:
        ledger: the ledger.
        number: the request.
        out: folder for `certificate-NUMBER.json` and `certificate-NUMBER.html`.
        key: file with a secret of at least 16 bytes, to sign with.

    Returns:
        The JSON file.

    Raises:
        UsageError: there is no such request, it is not answered, the key is unusable, or `out` cannot be written.
    """
    from demur.requests.page import certificate_page

    facts = certificate_facts(ledger, number)
    text = canonical(facts)
    document = {"certificate": facts, "sha256": hashlib.sha256(text.encode()).hexdigest()}
    if key is not None:
        document["hmac_sha256"] = _signature(text, _secret(key))
    page = certificate_page(document)
    file = Path(out) / f"certificate-{number:04d}.json"
    try:
        for path, content in ((file, canonical(document) + "\n"), (file.with_suffix(".html"), page)):
            with atomic_write(path) as temporary:
                temporary.write_text(content, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write the certificate to {out}: {error.strerror or error}") from error
    return file


def verify_certificate(
    file: str | Path, key: str | Path | None = None, ledger: Ledger | None = None, rows: str | None = None
) -> list[str]:
    """Find out whether a certificate says what it said when it was written.

    Args:
        file: the JSON file.
        key: the secret that it was signed with; without it a signature is not looked at.
        ledger: the ledger it came from, whose chain must hold its entry.
        rows: rows that must be the ones that it is about.

    Returns:
        What is wrong with it, a sentence each; empty where nothing is.

    Raises:
        UsageError: the file is no certificate, the key is unusable, or rows cannot be read.
    """
    document = _read(file)
    facts = document["certificate"]
    text = canonical(facts)
    problems = []
    if not hmac.compare_digest(hashlib.sha256(text.encode()).hexdigest(), str(document.get("sha256"))):
        problems.append("its content has been changed: it does not have the SHA-256 that stands in it")
    if key is not None:
        signed = document.get("hmac_sha256")
        if signed is None:
            problems.append("it is not signed")
        elif not hmac.compare_digest(_signature(text, _secret(key)).encode(), str(signed).encode()):
            problems.append("its signature is not one of its content under this key")
    if ledger is not None:
        problems += _not_in_chain(facts, ledger)
    if rows is not None:
        problems += _other_rows(facts, rows)
    return problems


def _read(file: str | Path) -> dict[str, Any]:
    try:
        document = json.loads(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror or error}") from error
    except ValueError as error:
        raise UsageError(f"{file} is no certificate: it is not JSON") from error
    facts = document.get("certificate") if isinstance(document, dict) else None
    if not isinstance(facts, dict) or facts.get("kind") != _KIND:
        raise UsageError(f"{file} is no certificate of demur's")
    if facts.get("version", 0) > _VERSION:
        raise UsageError(f"{file} was written by a newer demur: update demur")
    return document


def _not_in_chain(facts: dict[str, Any], ledger: Ledger) -> Iterator[str]:
    from demur.requests.verification import chain_problems

    with ledger.store.reading() as connection:
        entries = ledger.store.entries(connection)
    if problems := chain_problems(entries):
        yield f"the ledger's chain is broken: {problems[0]}"
    request = facts["request"]["id"]
    known = {entry.hash: entry for entry in entries}
    answered = known.get(facts["chain"]["entry"])
    if answered is None or answered.request != request:
        yield f"the ledger has no entry {facts['chain']['entry']} for request {request}"
    if facts["chain"]["head"] not in known:
        yield "the ledger lacks entries that it had when the certificate was written"


def _other_rows(facts: dict[str, Any], source: str) -> Sequence[str]:
    from demur.data import read_rows
    from demur.requests.rows import row_hashes, rows_digest

    asked = facts["request"]
    found = row_hashes(read_rows(source), asked["salt"])
    same = rows_digest(found) == asked["rows_sha256"]
    return [] if same else [f"it is not about the rows in {source}"]


def _signature(text: str, secret: bytes) -> str:
    return hmac.new(secret, text.encode(), hashlib.sha256).hexdigest()


def _secret(key: str | Path) -> bytes:
    try:
        secret = Path(key).read_bytes().strip()
    except OSError as error:
        raise UsageError(f"cannot read the key {key}: {error.strerror or error}") from error
    if len(secret) < 16:
        raise UsageError(f"the key {key} has {len(secret)} bytes: make one of at least 16 (openssl rand -hex 32)")
    return secret
