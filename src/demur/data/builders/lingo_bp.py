"""Linguistic backpropagation: a response improved by editing the chain it was derived from (arXiv 2509.01909).

Each round judges the response, has an editor revise the chain's nodes backwards from its strategies, keeps the
strategies within a trust region, and writes the response anew. Judges see the query and the response only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

from demur.data.builders.safety_chain import SafetyChain, trust_region
from demur.data.columns import dataset_from_rows
from demur.errors import DemurError, UsageError

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = [
    "MAY_CHANGE",
    "Edit",
    "Editor",
    "LingoBP",
    "SafetyVerdict",
    "Side",
    "Step",
    "Trajectory",
    "UnreadableReply",
    "UserVerdict",
    "read_nodes",
    "trajectories_to_preferences",
    "trajectories_to_sft",
]

Side = Literal["both", "user", "developer"]
MAY_CHANGE = {
    "user": ("needs", "usefulness_strategies"),
    "developer": ("needs", "intent", "guideline", "safety_strategies", "usefulness_strategies"),
    "both": ("needs", "intent", "guideline", "safety_strategies", "usefulness_strategies"),
}
"""Side → the nodes that an edit for it may change."""

_SETS = ("safety_strategies", "usefulness_strategies")
_TRIES, _TRIES_IN_ALL = 3, 10


class UnreadableReply(DemurError):
    """A model that edits or judges gave no answer that can be read; other queries may fare better."""


@dataclass(frozen=True)
class UserVerdict:
    """How well a response serves the user.

    Attributes:
        score: satisfaction, from -1 to 1.
        suggestions: what would serve better, one a weak point.
    """

    score: float
    suggestions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not -1 <= self.score <= 1:
            raise UsageError(f"satisfaction runs from -1 to 1, not {self.score:g}: check the user judge")


@dataclass(frozen=True)
class SafetyVerdict:
    """How safe a response is.

    Attributes:
        score: 1 safe, 0.5 borderline, 0 unsafe.
        advice: what would be safer.
        next_turn: what the user may ask next.
    """

    score: float
    advice: str = ""
    next_turn: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.score <= 1:
            raise UsageError(f"safety runs from 0 to 1, not {self.score:g}: check the safety judge")

    @property
    def risk(self) -> float:
        """1 - score."""
        return 1.0 - self.score


@dataclass(frozen=True)
class Edit:
    """What an editor is asked to revise.

    Attributes:
        query: what the user asks.
        chain, response: as they are.
        satisfaction, safety: the judges' verdicts; None where that side is not asked.
        side: whose verdict counts; with "both" safety comes first.
        attempt: how often the editor was asked before and could not be read.
    """

    query: str
    chain: SafetyChain
    response: str
    satisfaction: UserVerdict | None
    safety: SafetyVerdict | None
    side: Side
    attempt: int = 0


class Editor(Protocol):
    """Revises chains, and writes responses from them."""

    def revise(self, edit: Edit) -> str:
        """New nodes, as a JSON object in the reply's last fenced block."""
        ...

    def respond(self, query: str, chain: SafetyChain) -> tuple[str, str]:
        """Thinking and response that follow from a chain and do not mention it."""
        ...


@dataclass(frozen=True)
class Step:
    """A round's chain, what was written from it, and what the judges say.

    Attributes:
        chain, thinking, response: as written.
        satisfaction, safety: the verdicts.
    """

    chain: SafetyChain
    thinking: str
    response: str
    satisfaction: UserVerdict
    safety: SafetyVerdict

    @property
    def text(self) -> str:
        """The response behind its thinking, where there is any."""
        return f"<think>\n{self.thinking}\n</think>\n\n{self.response}" if self.thinking else self.response


@dataclass(frozen=True)
class Trajectory:
    """A query and the whole history of its response.

    Attributes:
        query: what the user asks.
        steps: the first response, and one a round.
    """

    query: str
    steps: tuple[Step, ...]

    def pearl(self, tolerance: float = 0.0) -> Step | None:
        """The most satisfying step whose risk is at most the tolerance, of equals the latest; None where none is."""
        safe = [step for step in self.steps if step.safety.risk <= tolerance + 1e-12]
        return max(reversed(safe), key=lambda step: step.satisfaction.score, default=None)


class LingoBP:
    """Improves responses by feedback on their chains.

    Args:
        editor: revises chains and writes responses.
        user_judge: query, response → satisfaction.
        safety_judge: query, response → safety.
        iterations: whose verdict counts in each round. In a "user" round safety nodes stay as they are.
        max_change: of the trust region (see `trust_region`); None for none.
        early_stop: end as soon as the scores that the next round would raise are 1.

    Raises:
        UsageError: an iteration is none of both, user and developer, or max_change is negative.
    """

    def __init__(
        self,
        editor: Editor,
        user_judge: Callable[[str, str], UserVerdict],
        safety_judge: Callable[[str, str], SafetyVerdict],
        iterations: Sequence[Side] = ("both",) * 3,
        max_change: int | None = 2,
        early_stop: bool = False,
    ) -> None:
        for side in iterations:
            if side not in MAY_CHANGE:
                raise UsageError(f"an iteration must be both, user or developer, not {side!r}")
        if max_change is not None and max_change < 0:
            raise UsageError(f"max_change must be at least 0, not {max_change}")
        self.editor, self.user_judge, self.safety_judge = editor, user_judge, safety_judge
        self.iterations, self.max_change, self.early_stop = tuple(iterations), max_change, early_stop

    def optimize(self, query: str, chain: SafetyChain) -> Trajectory:
        """The history of one response, from the given chain on.

        Raises:
            UnreadableReply: the editor could not be read, three times in a round or ten times in all.
        """
        steps, failures = [self._step(query, chain)], 0
        for side in self.iterations:
            last = steps[-1]
            wanted = {"user": [last.satisfaction.score], "developer": [last.safety.score]}.get(
                side, [last.satisfaction.score, last.safety.score]
            )
            if self.early_stop and all(score == 1 for score in wanted):
                break
            nodes, failed = self._revise(query, last, side, _TRIES_IN_ALL - failures)
            failures += failed
            steps.append(self._step(query, self._near(last.chain, nodes)))
        return Trajectory(query, tuple(steps))

    def _step(self, query: str, chain: SafetyChain) -> Step:
        thinking, response = self.editor.respond(query, chain)
        return Step(chain, thinking, response, self.user_judge(query, response), self.safety_judge(query, response))

    def _revise(self, query: str, last: Step, side: Side, left: int) -> tuple[dict[str, Any], int]:
        """The nodes that may change, and how many replies could not be read."""
        satisfaction = None if side == "developer" else last.satisfaction
        safety = None if side == "user" else last.safety
        problem = "no try is left"
        for attempt in range(min(_TRIES, left)):
            reply = self.editor.revise(Edit(query, last.chain, last.response, satisfaction, safety, side, attempt))
            try:
                return read_nodes(reply, MAY_CHANGE[side]), attempt
            except ValueError as error:
                problem = str(error)
        raise UnreadableReply(f"the editor's replies on {query[:60]!r} cannot be read ({problem}): use another editor")

    def _near(self, chain: SafetyChain, nodes: dict[str, Any]) -> SafetyChain:
        for name in _SETS:
            if name in nodes and self.max_change is not None:
                nodes = {**nodes, name: trust_region(getattr(chain, name), nodes[name], self.max_change)}
        return replace(chain, **nodes)


def read_nodes(reply: str, allowed: Sequence[str]) -> dict[str, Any]:
    """The nodes in a reply's last fenced block, of those that may change.

    Raises:
        ValueError: there is no such block, or it is no JSON object of nodes.
    """
    blocks = re.findall(r"```(?:json)?\s*(.*?)```", reply, re.DOTALL)
    if not blocks:
        raise ValueError("there is no fenced block")
    found = json.loads(blocks[-1])
    if not isinstance(found, dict):
        raise ValueError("the last fenced block is no object")
    nodes = {name: value for name, value in found.items() if name in allowed}
    if not nodes:
        raise ValueError(f"the last fenced block has none of {', '.join(allowed)}")
    for name, value in nodes.items():
        lists = name in _SETS and isinstance(value, list) and all(isinstance(v, str) for v in value)
        if not isinstance(value, str) and not lists:
            raise ValueError(f"{name} is neither text nor a list of texts")
    return nodes


def trajectories_to_sft(trajectories: Iterable[Trajectory], tolerance: float = 0.0) -> Dataset:
    """Rows to imitate: each query with its pearl point, thinking first.

    Args:
        trajectories: queries without a step whose risk is at most the tolerance are left out.
        tolerance: of the risk.

    Raises:
        UsageError: no row is left.
    """
    found = [(t.query, step.text) for t in trajectories if (step := t.pearl(tolerance)) is not None]
    if not found:
        raise UsageError(f"no trajectory has a response with a risk of at most {tolerance:g}: raise the tolerance")
    return dataset_from_rows([{"id": str(i), "prompt": q, "response": r} for i, (q, r) in enumerate(found)])


def trajectories_to_preferences(trajectories: Iterable[Trajectory], tolerance: float = 0.0) -> Dataset:
    """Pairs: each query's pearl point over its first response.

    Args:
        trajectories: as for `trajectories_to_sft`; those whose first response is already the best are left out too.
        tolerance: of the risk.

    Raises:
        UsageError: no pair is left.
    """
    rows: list[dict[str, str]] = []
    for trajectory in trajectories:
        best, first = trajectory.pearl(tolerance), trajectory.steps[0]
        if best is not None and best.response != first.response:
            rows.append({"id": str(len(rows)), "prompt": trajectory.query, "chosen": best.text, "rejected": first.text})
    if not rows:
        raise UsageError("no trajectory ends better than it began: there are no pairs")
    return dataset_from_rows(rows)
