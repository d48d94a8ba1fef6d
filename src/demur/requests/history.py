"""What the ledger's entries say happened: requests and their states, steps and what was measured after each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from demur.requests.store import Entry

__all__ = ["FORGET", "OWN_SUITE", "UTILITY", "History", "Measure", "Request", "State", "Step", "history"]

State = Literal["received", "processing", "done", "failed", "rejected"]

FORGET = "forget_probability"
"""The forget score: mean length-normalised probability that the model gives to a request's answers."""
UTILITY = "retain_probability"
"""The utility: the same over the rows to keep."""
OWN_SUITE = "requests"
"""The suite of these two."""


@dataclass(frozen=True)
class Measure:
    """One number of an audit, with its 95 % interval.

    Attributes:
        metric: its name.
        value: the number.
        low, high: ends of its interval; None where it has none.
        n: rows that went into it.
        request: the request whose rows were measured; None where it is about the model as a whole.
        role: "before" the step, after it ("run"), or the "reference" model.
        suite: what measured it.
    """

    metric: str
    value: float
    low: float | None
    high: float | None
    n: int
    request: int | None = None
    role: str = "run"
    suite: str = OWN_SUITE


@dataclass
class Step:
    """One change of the model, or, where all rows were forgotten before, one look at it.

    Attributes:
        number: counted from 1.
        requests: those it was made for.
        excluded: requests whose rows were kept out of the rows to retain.
        start: the model that it started from: a folder within the ledger's, or None for the ledger's first model.
        run: run folder within the ledger's; None where there was nothing left to forget.
        model: where the model that it ended with lies, within the ledger's folder; None for the first model.
        settings: what was set otherwise than the ledger says.
        state: processing, done or failed.
        reason: why it failed.
        new_rows: rows that it forgot: those of its requests that no earlier one had asked for.
        retained: rows that were to be kept.
        weights: hash of all weights before and after.
        versions: of the software.
        seconds: time that it took, of the process that finished it.
        measures: what was measured, of all requests.
        missing: request → why its forget score could not be measured again.
        time: when it ended.
    """

    number: int
    requests: list[int]
    excluded: list[int]
    start: str | None
    run: str | None
    settings: dict[str, Any]
    state: State = "processing"
    model: str | None = None
    reason: str = ""
    new_rows: int = 0
    retained: int = 0
    weights: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    measures: list[Measure] = field(default_factory=list)
    missing: dict[int, str] = field(default_factory=dict)
    time: str = ""

    def measure(self, metric: str, request: int | None = None, role: str = "run") -> Measure | None:
        """A forget score or the utility, where it was measured."""
        wanted = (OWN_SUITE, metric, request, role)
        return next((m for m in self.measures if (m.suite, m.metric, m.request, m.role) == wanted), None)


@dataclass
class Request:
    """A request to forget rows.

    Attributes:
        id: its number.
        requester, reason, note, source: who asked, why, what else there is to say, where the rows were; None where
            not given or redacted.
        received, deadline: in UTC.
        rows: how many rows.
        rows_digest: one hash over all of them.
        texts: whether the rows are texts, and not questions or prompts with their answers.
        keep_rows: keep the rows beside the ledger once they are forgotten.
        unknown: places, counted from 1, of rows that are not in the model's known training data; None where nobody said
            what that is.
        state: received, processing, done, failed or rejected.
        redacted: whether what is personal has been deleted.
        explanation: why it failed or was rejected.
        step: the last step that it was part of.
        same_as: earlier requests that had asked for some of its rows; filled once it is done.
        new_rows: rows that were forgotten for it, and not for an earlier request.
        finished: when it was done or rejected.
        entry: hash of the entry that says so.
        repeated: whether `add` found that it had been made before.
    """

    id: int
    requester: str | None
    reason: str | None
    note: str | None
    source: str | None
    received: datetime
    deadline: datetime
    rows: int
    rows_digest: str
    texts: bool
    keep_rows: bool
    unknown: list[int] | None
    state: State = "received"
    redacted: bool = False
    explanation: str = ""
    step: int | None = None
    same_as: list[int] = field(default_factory=list)
    new_rows: int = 0
    finished: datetime | None = None
    entry: str = ""
    repeated: bool = False

    @property
    def open(self) -> bool:
        """Whether something is still to be done."""
        return self.state not in ("done", "rejected")

    def days_left(self, at: datetime) -> int:
        """Whole days from `at` to the deadline; negative once it has passed."""
        return (self.deadline - at) // timedelta(days=1)

    def overdue(self, at: datetime) -> bool:
        """Whether the deadline has passed with the request still open."""
        return self.open and at > self.deadline

    @property
    def on_time(self) -> bool | None:
        """Whether it was answered before its deadline; None while it is open."""
        return None if self.finished is None else self.finished <= self.deadline


@dataclass(frozen=True)
class History:
    """Everything the ledger knows.

    Attributes:
        salt: of the rows' hashes.
        settings: of the ledger.
        requests: by number.
        steps: in order.
        head: hash of the last entry.
    """

    salt: str
    settings: dict[str, Any]
    requests: dict[int, Request]
    steps: list[Step]
    head: str

    @property
    def finished(self) -> list[Step]:
        """The steps that ended well: the sequence."""
        return [step for step in self.steps if step.state == "done"]

    @property
    def model(self) -> str | None:
        """Where the model as it stands lies, within the ledger's folder; None while it is the first one."""
        return self.finished[-1].model if self.finished else None

    @property
    def weights(self) -> str | None:
        """Hash of the weights of the model as it stands; None before the first step."""
        return self.finished[-1].weights["after"] if self.finished else None

    def step(self, number: int | None) -> Step | None:
        """The step with that number."""
        return next((step for step in self.steps if step.number == number), None)

    def forget_scores(self, request: int) -> list[tuple[int, Measure]]:
        """A request's forget score after each step that measured it, the step's number first."""
        found = ((step.number, step.measure(FORGET, request)) for step in self.finished)
        return [(number, measure) for number, measure in found if measure is not None]


def history(entries: Sequence[Entry], personal: Mapping[int, Mapping[str, str | None]]) -> History:
    """Read the chain from its first entry to its last."""
    created = entries[0].facts
    requests: dict[int, Request] = {}
    steps: list[Step] = []
    for entry in entries[1:]:
        facts = entry.facts
        if entry.event == "processing":
            steps.append(Step(**facts))
            _mark(requests, steps[-1])
        elif entry.event in ("finished", "failed"):
            _end(steps[facts["step"] - 1], entry, facts)
            _mark(requests, steps[facts["step"] - 1])
        elif entry.request is not None:
            _about_one(requests, entry, facts, personal)
    return History(created["salt"], created["settings"], requests, steps, entries[-1].hash)


def _end(step: Step, entry: Entry, facts: Mapping[str, Any]) -> None:
    step.state = "done" if entry.event == "finished" else "failed"
    step.time = entry.time
    for name, value in facts.items():
        if name == "measures":
            step.measures = [Measure(**measure) for measure in value]
        elif name == "missing":
            step.missing = {int(request): why for request, why in value.items()}
        elif name != "step":
            setattr(step, name, value)


def _mark(requests: Mapping[int, Request], step: Step) -> None:
    for number in step.requests:
        request = requests[number]
        request.step = step.number
        if step.state != "done":  # that a request is done, its own entry says
            request.state, request.explanation = step.state, step.reason


def _about_one(
    requests: dict[int, Request], entry: Entry, facts: dict[str, Any], personal: Mapping[int, Mapping[str, str | None]]
) -> None:
    number = entry.request
    assert number is not None
    if entry.event == "received":
        known = personal.get(number, {})
        requests[number] = Request(
            number,
            known.get("requester"),
            known.get("reason"),
            known.get("note"),
            known.get("source"),
            datetime.fromisoformat(facts["received"]),
            datetime.fromisoformat(facts["deadline"]),
            facts["rows"],
            facts["rows_digest"],
            facts["texts"],
            facts["keep_rows"],
            facts["unknown"],
        )
        return
    request = requests[number]
    if entry.event == "redacted":
        request.redacted, request.keep_rows = True, False
        return
    request.state = "done" if entry.event == "done" else "rejected"
    request.finished, request.entry = datetime.fromisoformat(entry.time), entry.hash
    request.explanation = facts.get("reason", "")
    request.same_as, request.new_rows = facts.get("same_as", []), facts.get("new_rows", 0)


def plain(measures: Sequence[Measure]) -> list[dict[str, Any]]:
    """Measures as JSON values."""
    return [asdict(measure) for measure in measures]
