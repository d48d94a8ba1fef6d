"""Requests answered one after another on the same model, so that a process killed anywhere can be started again.

A step's first entry in the ledger fixes all that decides its outcome: which requests, which rows stay out of the rows
to keep, the model it starts from. What follows (training, auditing) is a function of that; its last entries are written
in one transaction. So whatever is found half-done is done again, with the same end.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import demur
from demur.errors import DemurError, UsageError
from demur.requests.history import History, Measure, Request, Step, plain
from demur.requests.rows import read_requested, row_hashes, write_rows
from demur.requests.scoring import measured
from demur.requests.verdict import settled

if TYPE_CHECKING:
    from datasets import Dataset

    from demur.models import LanguageModel
    from demur.requests.ledger import Ledger
    from demur.runs import RunFolder
    from demur.training import ForgetSettings

__all__ = ["Say", "load_standing", "locked", "process", "sweep"]

_KEPT = ("config.yaml", "state.json", "events.jsonl", "results.parquet", "model", "merged")

Say = Callable[[str], Any]
"""Told in one sentence what is happening."""


@contextlib.contextmanager
def locked(ledger: Ledger, say: Say) -> Iterator[None]:
    """Be the only process that changes the ledger's model; says so where another one has to be waited for."""
    from filelock import FileLock, Timeout

    lock = FileLock(ledger.path / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"waiting for another process that works on {ledger.path} …")
        lock.acquire()
    except OSError as error:
        raise UsageError(f"cannot write to the ledger {ledger.path}: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()


def process(ledger: Ledger, *, together: bool, retry: bool, given: Mapping[str, Any], say: Say) -> list[Request]:
    """See `Ledger.process`."""
    ledger.forget_settings(given, forget="rows")  # refused here, before anything is written
    tried: set[int] = set()
    with locked(ledger, say):
        sweep(ledger)
        while (step := _open_step(ledger) or _next_step(ledger, together, retry, given, tried)) is not None:
            tried |= set(step.requests)
            names = f"request{'s' * (len(step.requests) > 1)} {', '.join(map(str, step.requests))}"
            say(f"{names}: {'forgetting' if step.run else 'all rows were forgotten before; measuring'}")
            try:
                _take(ledger, step, say)
            except Exception as error:
                expected = isinstance(error, DemurError)
                reason = str(error) if expected else f"{type(error).__name__}: {error}"
                with ledger.store.writing() as connection:
                    ledger.store.append(connection, "failed", {"step": step.number, "reason": reason})
                if not expected:
                    raise
                say(f"{names}: failed: {error}")
            sweep(ledger)
    found = ledger.history().requests
    return [found[number] for number in sorted(tried)]


def sweep(ledger: Ledger) -> None:
    """Remove what is no longer needed: rows of answered requests, and the work of steps that have ended."""
    with ledger.store.writing():  # no request is being added now, so a file without a request is what a crash left
        past = ledger.history()
        wanted = {ledger.rows_file(r.id) for r in past.requests.values() if r.open or r.keep_rows}
        for file in (ledger.path / "rows").glob("*"):
            if file not in wanted:
                file.unlink()
        if all(step.state != "processing" for step in past.steps):
            shutil.rmtree(ledger.path / "work", ignore_errors=True)


def _open_step(ledger: Ledger) -> Step | None:
    return next((step for step in ledger.history().steps if step.state == "processing"), None)


def _next_step(ledger: Ledger, together: bool, retry: bool, given: Mapping[str, Any], tried: set[int]) -> Step | None:
    """Put down what the next step is to be; None where nothing is left to do."""
    with ledger.store.writing() as connection:
        past = ledger.history(connection)
        states = ("received", "failed") if retry else ("received",)
        waiting = [r for r in past.requests.values() if r.state in states and r.id not in tried]
        if not waiting:
            return None
        # Texts and questions do not go into one training set.
        chosen = [r.id for r in waiting if r.texts == waiting[0].texts] if together else [waiting[0].id]
        hashes = ledger.store.hashes(connection)
        known = {h for r in past.requests.values() if settled(past, r) for h in hashes[r.id]}
        number = len(past.steps) + 1
        facts: dict[str, Any] = {
            "number": number,
            "requests": chosen,
            "excluded": [r.id for r in past.requests.values() if r.state != "rejected"],
            "start": past.model,
            "run": f"runs/{number:04d}" if any(set(hashes[c]) - known for c in chosen) else None,
            "settings": dict(given),
        }
        ledger.store.append(connection, "processing", facts)
        return Step(**facts)


@dataclass(frozen=True)
class _Prepared:
    """The rows of a step, by request, and the files it trains on."""

    asked: Mapping[int, Dataset]
    new: Mapping[int, list[int]]
    same_as: Mapping[int, list[int]]
    retain: Dataset
    settings: ForgetSettings


def _take(ledger: Ledger, step: Step, say: Say) -> None:
    """Train, audit, and write the outcome down."""
    started = time.monotonic()
    past = ledger.history()
    prepared = _prepare(ledger, step, past)
    base, reference = ledger.model_path(None), ledger.reference()  # found before the cache is another one
    measures: list[Measure] = []
    with _own_cache(ledger.path / "work" / "cache"):
        chunk = prepared.settings.chunk_length
        lm = load_standing(ledger, step.start, prepared.settings, base)
        before = lm.weights_hash()
        if past.weights is not None and past.weights != before:
            raise DemurError(f"the model in {lm.path} is not the one that the last step left: put a copy in its place")
        measures += measured(lm, prepared.asked, None if past.finished else prepared.retain, "before", chunk)
        del lm  # the model after may need its place
        run = None
        if step.run is not None:
            run = _train(ledger, step, prepared)
        model = step.start if run is None else f"{step.run}/{_standing(run, prepared.settings)}"
        say("measuring every request so far")
        lm = load_standing(ledger, model, prepared.settings, base)
        after = lm.weights_hash()
        earlier, missing = _earlier(ledger, past, step)
        measures += measured(lm, {**earlier, **prepared.asked}, prepared.retain, chunk_length=chunk)
        del lm
        if reference is not None:
            lm = _load(reference, prepared.settings)
            measures += measured(lm, prepared.asked, prepared.retain, "reference", chunk)
            del lm
        if run is not None and ledger.settings["suite"] is not None:
            measures += _suite(ledger, run, reference)
    if run is not None and not any(past.requests[r].keep_rows for r in step.requests):
        _strip(run)
    seconds = time.monotonic() - started
    facts = {
        "step": step.number,
        "model": model,
        "weights": {"before": before, "after": after},
        "new_rows": sum(map(len, prepared.new.values())),
        "retained": len(prepared.retain),
        "versions": _versions(),
        "seconds": round(seconds, 2),
        "measures": plain(measures),
        "missing": {str(request): why for request, why in missing.items()},
    }
    with ledger.store.writing() as connection:
        ledger.store.append(connection, "finished", facts)
        for number in step.requests:
            outcome = {
                "step": step.number,
                "new_rows": len(prepared.new[number]),
                "same_as": prepared.same_as[number],
            }
            ledger.store.append(connection, "done", outcome, number)


def _prepare(ledger: Ledger, step: Step, past: History) -> _Prepared:
    """Read the step's rows and write the files that it trains on.

    Raises:
        UsageError: nothing is left to retain.
        DemurError: the rows that were put aside are not there.
    """
    from demur.data import read_rows

    with ledger.store.reading() as connection:
        hashes = ledger.store.hashes(connection)
    asked = {r: read_requested(ledger.rows_file(r), r, hashes[r], past.salt) for r in step.requests}
    owner: dict[str, int] = {}  # of each row, the first request that asked for it, among those settled before or now
    for number in [r.id for r in past.requests.values() if settled(past, r)] + step.requests:
        for value in hashes[number]:
            owner.setdefault(value, number)
    new = {r: [i for i, h in enumerate(hashes[r]) if owner[h] == r] for r in step.requests}
    same_as = {r: sorted({owner[h] for h in hashes[r]} - {r}) for r in step.requests}
    everything = read_rows(ledger.settings["retain"])
    excluded = {h for r in step.excluded for h in hashes[r]}
    places = [i for i, h in enumerate(row_hashes(everything, past.salt)) if h not in excluded]
    if not places:
        raise UsageError(
            f"every row of {ledger.settings['retain']} has been asked to be deleted: nothing is left to keep"
        )
    retain = everything.select(places)
    work = ledger.path / "work" / f"{step.number:04d}"
    write_rows(work / "forget.jsonl", [(str(r), asked[r], new[r]) for r in step.requests])
    write_rows(work / "retain.jsonl", [("retain", retain, range(len(retain)))])
    settings = ledger.forget_settings(
        step.settings,
        model=ledger.model_path(step.start),
        forget=str(work / "forget.jsonl"),
        retain=str(work / "retain.jsonl"),
    )
    return _Prepared(asked, new, same_as, retain, settings)


def _train(ledger: Ledger, step: Step, prepared: _Prepared) -> RunFolder:
    from demur.training import forget

    assert step.run is not None
    return forget(prepared.settings, ledger.path / step.run)


def _standing(run: RunFolder, settings: ForgetSettings) -> str:
    """Where in a run's folder the whole model lies that the next step starts from: adapters are merged into it."""
    from demur.files import atomic_directory

    if not (run.model_path / "adapter_config.json").is_file():
        return run.model_path.name
    merged = run.path / "merged"
    if not merged.is_dir():
        lm = _load(str(run.model_path), settings)
        lm.model = lm.model.merge_and_unload()  # type: ignore[operator]
        with atomic_directory(merged) as folder:
            lm.save(folder)
    return merged.name


def load_standing(
    ledger: Ledger, model: str | None, settings: ForgetSettings, base: str | None = None
) -> LanguageModel:
    """Load the model that a step left, or the ledger's first one."""
    return _load(base if model is None and base is not None else ledger.model_path(model), settings)


def _load(name: str, settings: ForgetSettings) -> LanguageModel:
    from demur.models import load_model

    return load_model(
        name,
        template=settings.template,
        device=settings.device,
        dtype=settings.dtype,
        trust_remote_code=settings.trust_remote_code,
    )


def _earlier(ledger: Ledger, past: History, step: Step) -> tuple[dict[int, Dataset], dict[int, str]]:
    """The rows of requests answered before, as far as they can still be had, and why the others cannot."""
    found: dict[int, Dataset] = {}
    missing: dict[int, str] = {}
    for request in past.requests.values():
        if request.state == "done" and request.id not in step.requests:
            try:
                found[request.id] = ledger.rows_of(request.id)
            except DemurError as error:
                missing[request.id] = str(error)
    return found, missing


def _suite(ledger: Ledger, run: RunFolder, reference: str | None) -> list[Measure]:
    """The numbers of the ledger's audit suite, of the run's model and the reference."""
    from demur.audits import AuditRequest
    from demur.audits.suites import suites

    settings = ledger.settings
    request = AuditRequest(
        str(run.path),
        reference,
        settings["suite_rows"],
        before=False,
        settings=settings["suite_options"],
    )
    _, reports = suites.get(settings["suite"]).function(request)
    return [
        Measure(r.metric, r.value, r.low, r.high, r.n, None, r.role, r.suite)
        for report in reports
        for r in report.results
        if r.value is not None
    ]


def _strip(run: RunFolder) -> None:
    """Remove from a run's folder what a suite may have written with the rows in it: all but what is known."""
    for entry in run.path.iterdir():
        if entry.is_dir() and entry.name not in _KEPT:
            shutil.rmtree(entry)
        elif entry.name not in _KEPT:
            entry.unlink()


@contextlib.contextmanager
def _own_cache(folder: Path) -> Iterator[None]:
    """Let what is cached lie in the ledger's work folder: it goes away with the rows that it was made from."""
    known = os.environ.get("DEMUR_CACHE")
    os.environ["DEMUR_CACHE"] = str(folder)
    try:
        yield
    finally:
        if known is None:
            del os.environ["DEMUR_CACHE"]
        else:
            os.environ["DEMUR_CACHE"] = known


def _versions() -> dict[str, str]:
    found = {name: version(name) for name in ("torch", "transformers", "peft", "datasets")}
    return {"demur": demur.__version__, "python": platform.python_version(), **found}
