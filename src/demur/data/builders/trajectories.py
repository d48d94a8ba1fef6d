"""Lingo-BP over many queries: each trajectory is on disk once it is finished, so a killed run goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demur.data.builders.journal import open_journal
from demur.data.builders.lingo_bp import (
    LingoBP,
    SafetyVerdict,
    Step,
    Trajectory,
    UnreadableReply,
    UserVerdict,
    trajectories_to_preferences,
)
from demur.data.builders.safety_chain import SafetyChain
from demur.data.columns import dataset_from_rows
from demur.data.rows import iterate
from demur.errors import DemurError, TooLongError, UsageError

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["Request", "Trajectories", "optimize_requests", "read_requests"]

_FORMAT = 1


@dataclass(frozen=True)
class Request:
    """A query to optimise.

    Attributes:
        id: its row's.
        query: what the user asks.
        category: of its risk; empty for none.
    """

    id: str
    query: str
    category: str = ""


@dataclass(frozen=True)
class Trajectories:
    """What became of all queries.

    Attributes:
        found: id → trajectory, in the rows' order.
        unreadable: id → why there is none.
        tolerance: of the risk of a pearl point.
    """

    found: Mapping[str, Trajectory]
    unreadable: Mapping[str, str]
    tolerance: float = 0.0

    def pairs(self) -> Dataset:
        """A pair for each query whose pearl point is not its first response, with its whole history.

        Columns beside `prompt`, `chosen` and `rejected`: `satisfaction` and `risk` of the chosen response,
        `first_satisfaction` and `first_risk`, and `steps`, the history.

        Raises:
            DemurError: no trajectory could be read.
            UsageError: no pair is left.
        """
        if not self.found:
            why = next(iter(self.unreadable.values()))
            raise DemurError(f"none of {len(self.unreadable)} requests has a trajectory, the first because {why}")
        rows = []
        for name, trajectory in self.found.items():
            first, best = trajectory.steps[0], trajectory.pearl(self.tolerance)
            if best is None or best.response == first.response:
                continue
            (pair,) = trajectories_to_preferences([trajectory], self.tolerance).to_list()
            scores = {"satisfaction": best.satisfaction.score, "risk": best.safety.risk}
            scores |= {"first_satisfaction": first.satisfaction.score, "first_risk": first.safety.risk}
            rows.append({**pair, "id": name, **scores, "steps": [_told(step) for step in trajectory.steps]})
        if not rows:
            raise UsageError("no trajectory ends better than it began: there are no pairs; use another editor or judge")
        return dataset_from_rows(rows)

    def sentences(self) -> list[str]:
        """What to know of the queries that give no pair."""
        best = {name: trajectory.pearl(self.tolerance) for name, trajectory in self.found.items()}
        unsafe = [name for name, step in best.items() if step is None]
        same = [n for n, step in best.items() if step is not None and step.response == self.found[n].steps[0].response]
        out = []
        for names, what in (
            (
                list(self.unreadable),
                f"have no trajectory, the first because {next(iter(self.unreadable.values()), '')}",
            ),
            (unsafe, f"have no response with a risk of at most {self.tolerance:g}"),
            (same, "had their best response at once"),
        ):
            if names:
                shown = ", ".join(names[:5]) + (" …" if len(names) > 5 else "")
                out.append(f"{len(names)} of {len(best) + len(self.unreadable)} requests {what}: {shown}")
        return out


def read_requests(rows: Dataset) -> list[Request]:
    """The queries of rows with a `prompt` (or `question`), perhaps a `category`.

    Raises:
        UsageError: there is no such column, a prompt is no text, or two are the same.
    """
    asked = next((name for name in ("prompt", "question") if name in rows.column_names), None)
    if asked is None:
        raise UsageError(f"the rows have no column 'prompt': they have {', '.join(rows.column_names)}")
    out, seen = [], dict[str, str]()
    for row in iterate(rows):
        query = row[asked]
        if not isinstance(query, str) or not query.strip():
            raise UsageError(f"row {row['id']!r}: the prompt must be text, and not empty")
        if query in seen:
            raise UsageError(f"rows {seen[query]!r} and {row['id']!r} have the same prompt: keep one of them")
        seen[query] = str(row["id"])
        out.append(Request(str(row["id"]), query, str(row.get("category") or "")))
    return out


def optimize_requests(
    requests: Sequence[Request],
    plan: Callable[[str], SafetyChain],
    method: Callable[[Request], LingoBP],
    file: str | os.PathLike[str],
    facts: Mapping[str, Any],
    *,
    tolerance: float = 0.0,
    run: Callable[[Callable[[Request], Any], Sequence[Request]], Iterable[tuple[Request, Any]]] | None = None,
    progress: Callable[[int, int], Any] | None = None,
) -> Trajectories:
    """Optimise the response to each query.

    Args:
        requests: the queries.
        plan: query → the chain to begin with.
        method: the optimiser for a query; its safety judge may depend on the category.
        file: journal that keeps each trajectory as soon as it is finished; a second call goes on from it.
        facts: what trajectories depend on besides the query: models, rows, settings, as JSON.
        tolerance: of the risk of a pearl point.
        run: applies a function to queries, perhaps to several at once; see `demur.models.Gathering`.
        progress: called with queries done and queries in all.

    Raises:
        UsageError: the journal was made with other facts, is damaged, or is in use.
    """

    def work(request: Request) -> dict[str, Any]:
        try:
            trajectory = method(request).optimize(request.query, plan(request.query))
        except (UnreadableReply, TooLongError) as error:
            return {"id": request.id, "unreadable": str(error)}
        return {"id": request.id, "steps": [_told(step) for step in trajectory.steps]}

    with open_journal(file, {"format": _FORMAT, **facts}) as journal:
        kept = {str(line["id"]): line for line in journal.lines}
        todo = [request for request in requests if request.id not in kept]
        ends = run(work, todo) if run is not None else ((request, work(request)) for request in todo)
        if progress is not None:
            progress(len(kept), len(requests))
        for request, line in ends:
            journal.add([line])
            kept[request.id] = line
            if progress is not None:
                progress(len(kept), len(requests))
    try:
        found = {
            r.id: Trajectory(r.query, tuple(map(_step, kept[r.id]["steps"]))) for r in requests if "steps" in kept[r.id]
        }
        unreadable = {r.id: str(kept[r.id]["unreadable"]) for r in requests if r.id not in found}
    except (KeyError, TypeError) as error:
        raise UsageError(f"{Path(file)} holds no trajectories ({error}): remove the file to begin anew") from None
    return Trajectories(found, unreadable, tolerance)


def _told(step: Step) -> dict[str, Any]:
    """A step as JSON gives it back."""
    return json.loads(json.dumps(asdict(step)))


def _step(told: Mapping[str, Any]) -> Step:
    liked = told["satisfaction"]
    return Step(
        SafetyChain.read(told["chain"]),
        told["thinking"],
        told["response"],
        UserVerdict(liked["score"], tuple(liked["suggestions"])),
        SafetyVerdict(**told["safety"]),
    )
