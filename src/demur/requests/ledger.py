"""The ledger of deletion requests: who asked for what, what was done about it, and how it was measured."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demur.errors import DemurError, UsageError
from demur.files import require_writable
from demur.requests.history import FORGET, UTILITY, History, Measure, Request, history
from demur.requests.intake import distinct, lasting_source
from demur.requests.rows import read_requested
from demur.requests.store import Store, now
from demur.requests.verdict import Verdict, judge

if TYPE_CHECKING:
    from datasets import Dataset

    from demur.requests.processing import Say
    from demur.requests.verification import Finding
    from demur.training import ForgetSettings

__all__ = ["Ledger", "Standing"]

_OWN = ("model", "forget", "retain", "holdout")  # settings of `demur forget` that are the ledger's own


def _quiet(sentence: str) -> None:
    return


@dataclass(frozen=True)
class Standing:
    """How a request stands.

    Attributes:
        request: what was asked, and its state.
        days_left: until the deadline; None where the request is answered.
        overdue: whether the deadline has passed with the request open.
        before: the forget score before its step.
        forget: the forget score after its step.
        latest: the forget score after the last step that could measure it.
        reference: the forget score of the reference model.
        utility: the model's utility after its step.
        run: run folder of its step, within the ledger's.
        verdict: what the scores say; None where it is not done.
    """

    request: Request
    days_left: int | None
    overdue: bool
    before: Measure | None
    forget: Measure | None
    latest: Measure | None
    reference: Measure | None
    utility: Measure | None
    run: str | None
    verdict: Verdict | None


def _sparing(wanted: ForgetSettings) -> ForgetSettings:
    """The settings, with one pass through the rows to keep where how long to train is left open."""
    from demur.training import Objective

    objective = Objective.make(
        wanted.objective,
        wanted.objective_options,
        wanted.retain_objective,
        wanted.forget_weight,
        wanted.retain_weight,
    )
    if {"anchor", "epochs"} & wanted.model_fields_set or "retain" not in objective.roles:
        return wanted
    return wanted.model_copy(update={"anchor": "retain", "epochs": 1})


class Ledger:
    """A ledger of deletion requests in a folder.

    Args:
        path: the folder; use `Ledger.create` or `Ledger.open`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()
        self.store = Store(self.path)

    @classmethod
    def create(
        cls,
        path: str | Path,
        *,
        model: str,
        retain: str,
        reference: str | None = None,
        holdout: str | None = None,
        training_data: str | None = None,
        days: int = 30,
        suite: str | None = None,
        suite_rows: Mapping[str, str] | None = None,
        suite_options: Mapping[str, Any] | None = None,
        recipe: str | Path | None = None,
        **settings: Any,
    ) -> Ledger:
        """Make a ledger.

        Args:
            path: its folder; made where it does not exist.
            model: the model that is to forget: a folder, a hub name or a lab model.
            retain: rows to keep. What is ever requested is taken out of them.
            reference: a model that never saw the requested rows, to compare forget scores with.
            holdout: rows never trained on, for suites that test membership.
            training_data: what the model is known to have been trained on; requested rows that are not in it are
                reported.
            days: from receipt to deadline, where a request names none.
            suite: an audit suite to run after every step.
            suite_rows: rows of the suite's other sets.
            suite_options: the suite's settings.
            recipe: file of settings of `demur forget`.
            settings: settings of `demur forget` by name. Where neither `anchor` nor `epochs` is given, a step goes once
                through all rows to keep, if its objective uses any: small requests wear a model out otherwise.

        Raises:
            UsageError: a setting is not what it must be, rows cannot be read, or the folder cannot be used.
        """
        from demur.audits.suites import suites
        from demur.data import read_rows
        from demur.models import resolve_model
        from demur.training import ForgetSettings

        ledger = cls(path)
        if ledger.store.file.exists():
            raise UsageError(f"{path} holds a ledger already: add requests to it, or choose another folder")
        if ledger.path.is_dir() and any(ledger.path.iterdir()):
            raise UsageError(f"{path} is not empty: choose another folder for the ledger")
        require_writable(ledger.path)
        if days < 1:
            raise UsageError(f"a deadline is at least a day after receipt, not {days}")
        if suite is not None:
            suites.get(suite)
        wanted = ForgetSettings.make(
            recipe, **{**settings, "model": model, "retain": retain, "forget": "requested rows"}
        )
        wanted = _sparing(wanted)
        resolve_model(model)
        for source in (retain, holdout, training_data):
            if source is not None:
                read_rows(source)
        kept = {name: value for name, value in wanted.model_dump().items() if name not in _OWN}
        kept["alternates"] = lasting_source(kept["alternates"])
        sources = {"retain": retain, "holdout": holdout, "training_data": training_data}
        ledger.store.create(
            {
                "model": lasting_source(model),
                **{name: lasting_source(source) for name, source in sources.items()},
                "reference": lasting_source(reference),
                "days": days,
                "suite": suite,
                "suite_rows": {name: lasting_source(source) for name, source in (suite_rows or {}).items()},
                "suite_options": dict(suite_options or {}),
                "forget": kept,
            }
        )
        return ledger

    @classmethod
    def open(cls, path: str | Path) -> Ledger:
        """A ledger that exists.

        Raises:
            UsageError: there is none, or a newer demur made it.
            DemurError: it is damaged.
        """
        ledger = cls(path)
        ledger.history()
        return ledger

    def history(self, connection: sqlite3.Connection | None = None) -> History:
        """Everything that the ledger knows.

        Args:
            connection: read through this one, as part of what it is doing.
        """
        with contextlib.ExitStack() as stack:
            if connection is None:
                connection = stack.enter_context(self.store.reading())
            entries = self.store.entries(connection)
            if not entries:
                raise DemurError(f"{self.store.file} is damaged: it has no entries")
            try:
                return history(entries, self.store.personal(connection))
            except (KeyError, TypeError, ValueError, IndexError) as error:
                raise DemurError(
                    f"{self.store.file} is damaged: its entries do not fit together ({error}): put a copy in its place"
                ) from error

    @property
    def settings(self) -> dict[str, Any]:
        """What `create` was given."""
        return self.history().settings

    def rows_file(self, request: int) -> Path:
        """Where a request's rows lie while they are needed."""
        return self.path / "rows" / f"{request:04d}.jsonl"

    def model_path(self, model: str | None) -> str:
        """A model as `load_model` takes it.

        Args:
            model: its folder within the ledger's, or None for the ledger's first model.
        """
        from demur.models import resolve_model

        return resolve_model(self.settings["model"]) if model is None else str(self.path / model)

    def reference(self) -> str | None:
        """The reference model as `load_model` takes it; None where there is none."""
        from demur.models import resolve_model

        name = self.settings["reference"]
        return None if name is None else resolve_model(name)

    def forget_settings(self, given: Mapping[str, Any], **own: Any) -> ForgetSettings:
        """The settings of a step's run: the ledger's, then those given, then those of the step itself."""
        from demur.training import ForgetSettings

        known = self.settings
        barred = [name for name in given if name in _OWN]
        if barred:
            raise UsageError(f"{barred[0]!r} is the ledger's own: make another ledger for another one")
        sources = {name: known[name] for name in ("model", "retain", "holdout")}
        return ForgetSettings.make(None, **{**sources, **known["forget"], **given, **own})

    def rows_of(self, request: int) -> Dataset:
        """A request's rows: those put aside, or from where they came, if that still gives the same.

        Raises:
            DemurError: they can no longer be had.
        """
        from demur.data import read_rows

        with self.store.reading() as connection:
            past, hashes = self.history(connection), self.store.hashes(connection)[request]
        if self.rows_file(request).is_file():
            return read_requested(self.rows_file(request), request, hashes, past.salt)
        source = past.requests[request].source
        if source is None:
            raise DemurError(f"the rows of request {request} were not kept, and where they came from is not known")
        try:
            rows, found = distinct(read_rows(source), past.salt)
        except DemurError as error:
            raise DemurError(
                f"the rows of request {request} were not kept, and their source is gone: {error}"
            ) from error
        if found != hashes:
            raise DemurError(f"the rows of request {request} were not kept, and {source} has others by now")
        return rows

    def add(
        self,
        rows: str | Path,
        requester: str,
        *,
        deadline: str | datetime | None = None,
        received: str | datetime | None = None,
        days: int | None = None,
        reason: str | None = None,
        note: str | None = None,
        keep_rows: bool = False,
    ) -> Request:
        """Put down a request.

        Args:
            rows: where the rows are: a file, a folder, or any row source, with a slice.
            requester: who asks.
            deadline: a date (its end, in UTC) or a time; `days` after receipt by default.
            received: when it came in; now by default.
            days: from receipt to deadline; the ledger's by default.
            reason: why.
            note: whatever else is to be known.
            keep_rows: keep the rows beside the ledger once they are forgotten, so that they can always be measured.

        Returns:
            The request; where the same requester asked for the same rows before, that one, `repeated`.

        Raises:
            UsageError: the rows cannot be read or used, nothing would be left to keep, or a time is not possible.
        """
        from demur.requests.intake import add

        return add(self, str(rows), requester, deadline, received, days, reason, note, keep_rows)

    def request(self, number: int, past: History | None = None) -> Request:
        """One request.

        Raises:
            UsageError: there is none of that number.
        """
        known = (past or self.history()).requests
        if number not in known:
            numbers = f"the ledger has 1 to {len(known)}" if known else "the ledger has none yet"
            raise UsageError(f"there is no request {number}: {numbers}")
        return known[number]

    def reject(self, number: int, reason: str) -> Request:
        """Turn a request down; its rows are deleted from the ledger's folder.

        Raises:
            UsageError: there is no such request, it is answered or being answered, or no reason is given.
        """
        from demur.requests.processing import sweep

        if not reason.strip():
            raise UsageError("a rejection needs a reason")
        with self.store.writing() as connection:
            request = self.request(number, self.history(connection))
            if request.state not in ("received", "failed"):
                raise UsageError(f"request {number} is {request.state}: only one that waits can be rejected")
            self.store.append(connection, "rejected", {"reason": reason.strip()}, number)
        sweep(self)
        return self.request(number)

    def redact(self, number: int) -> Request:
        """Delete an answered request's kept rows, requester, reason, note and source; its hashes and numbers stay.

        Raises:
            UsageError: there is no such request, or it is still open.
        """
        from demur.requests.processing import sweep

        with self.store.writing() as connection:
            request = self.request(number, self.history(connection))
            if request.open:
                raise UsageError(f"request {number} is {request.state}: it can be redacted once it is answered")
            if not request.redacted:
                self.store.forget_personal(connection, number)
                self.store.append(connection, "redacted", {}, number)
        self.store.flush()
        sweep(self)
        return self.request(number)

    def process(
        self,
        *,
        together: bool = False,
        retry: bool = False,
        settings: Mapping[str, Any] | None = None,
        say: Say = _quiet,
    ) -> list[Request]:
        """Answer all requests that wait, each starting from the weights that the one before left.

        A process that was killed anywhere is finished by the next call, with the same weights and one outcome a
        request. A second process waits for the first.

        Args:
            together: forget all waiting rows in one step, and not one request after another.
            retry: take up also those that failed.
            settings: settings of `demur forget` that differ from the ledger's.
            say: told what is happening.

        Returns:
            The requests that were taken up, as they stand now; a failed one says why.

        Raises:
            UsageError: a setting is not what it must be.
        """
        from demur.requests.page import write_status
        from demur.requests.processing import process

        taken = process(self, together=together, retry=retry, given=settings or {}, say=say)
        if taken:
            write_status(self)
        return taken

    def status(self, at: datetime | None = None) -> list[Standing]:
        """How every request stands.

        Args:
            at: the time to count deadlines from; now by default.
        """
        past, at = self.history(), at or now()
        return [self._standing(past, request, at) for request in past.requests.values()]

    @staticmethod
    def _standing(past: History, request: Request, at: datetime) -> Standing:
        step = past.step(request.step) if request.state == "done" else None
        scores = past.forget_scores(request.id)
        return Standing(
            request,
            request.days_left(at) if request.open else None,
            request.overdue(at),
            step.measure(FORGET, request.id, "before") if step else None,
            step.measure(FORGET, request.id) if step else None,
            scores[-1][1] if scores else None,
            step.measure(FORGET, request.id, "reference") if step else None,
            step.measure(UTILITY) if step else None,
            step.run if step else None,
            judge(past, request),
        )

    def verify(self, number: int | None = None, *, rows: str | None = None, measure: bool = True) -> list[Finding]:
        """Find out whether everything is as the ledger says; see `verification.verify`."""
        from demur.requests.verification import verify

        return verify(self, number, rows=rows, measure=measure)

    def certificate(self, number: int, out: str | Path, key: str | Path | None = None) -> Path:
        """Write a request's certificate; see `certificate.write_certificate`."""
        from demur.requests.certificate import write_certificate

        return write_certificate(self, number, out, key)
