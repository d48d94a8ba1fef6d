"""Lingo-BP over many requests, with scripted models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from demur.data import LingoBP, SafetyChain, SafetyVerdict, TextEditor, Trajectory, UserVerdict, dataset_from_rows
from demur.data.builders.lingo_bp import UnreadableReply
from demur.data.builders.trajectories import Request, Trajectories, optimize_requests, read_requests
from demur.errors import DemurError, UsageError

REQUESTS = [Request("a", "I am tired"), Request("b", "paint it", "harbour"), Request("c", "?")]


class Words:
    """Adds one word to its plan in each round; the response is the plan's words."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def revise(self, edit) -> str:
        more = [*edit.chain.usefulness_strategies, f"more {len(edit.chain.usefulness_strategies)}"]
        return f"```json\n{json.dumps({'usefulness_strategies': more})}\n```"

    def respond(self, query: str, chain: SafetyChain) -> tuple[str, str]:
        self.asked.append(query)
        return "", ", ".join(chain.strategies)


def run(file: Path, editor: Words, stop_at: str | None = None, **facts: object) -> Trajectories:
    def plan(query: str) -> SafetyChain:
        if query == "?":
            raise UnreadableReply("no plan")
        if query == stop_at:
            raise KeyboardInterrupt
        return SafetyChain("needs", usefulness_strategies=("listen",))

    def method(request: Request) -> LingoBP:
        risky = request.category == "harbour"
        return LingoBP(
            editor,
            lambda query, response: UserVerdict(min(1.0, response.count("more") / 4)),
            lambda query, response: SafetyVerdict(0.0 if risky else 1.0, "stop"),
        )

    return optimize_requests(REQUESTS, plan, method, file, {"seed": 0, **facts})


def test_a_request_gives_a_pair_with_its_history_or_a_sentence(tmp_path: Path) -> None:
    ended = run(tmp_path / "journal", Words())
    (pair,) = ended.pairs().to_list()
    assert pair["id"] == "a" and pair["rejected"] == "listen" and pair["chosen"] == "listen, more 1, more 2, more 3"
    assert (pair["first_satisfaction"], pair["satisfaction"], pair["first_risk"], pair["risk"]) == (0, 0.75, 0, 0)
    assert [len(step["chain"]["usefulness_strategies"]) for step in pair["steps"]] == [1, 2, 3, 4]
    told = " ".join(ended.sentences())
    assert "1 of 3 requests have no trajectory" in told and ": c" in told
    assert "have no response with a risk of at most 0: b" in told


def test_what_was_finished_is_not_asked_again(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", Words())
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "journal", Words(), stop_at="paint it")
    again = Words()
    ended = run(tmp_path / "journal", again)
    assert set(again.asked) == {"paint it"}
    assert ended == whole and isinstance(ended.found["a"], Trajectory)
    assert run(tmp_path / "journal", last := Words()) == whole and last.asked == []
    with pytest.raises(UsageError, match="another seed"):
        run(tmp_path / "journal", Words(), seed=1)


def test_without_any_pair_there_is_an_error(tmp_path: Path) -> None:
    ended = run(tmp_path / "journal", Words())
    with pytest.raises(UsageError, match="no pairs"):
        Trajectories({"b": ended.found["b"]}, {}).pairs()
    assert len(Trajectories(ended.found, {}, tolerance=1.0).pairs()) == 2
    with pytest.raises(DemurError, match="none of 1 requests has a trajectory, the first because no plan"):
        Trajectories({}, ended.unreadable).pairs()


def test_requests_are_texts_that_differ() -> None:
    rows = dataset_from_rows([{"id": "x", "question": "q?", "category": None}, {"id": "y", "question": "r?"}])
    assert read_requests(rows) == [Request("x", "q?"), Request("y", "r?")]
    with pytest.raises(UsageError, match="no column 'prompt'"):
        read_requests(dataset_from_rows([{"id": "x", "text": "q"}]))
    with pytest.raises(UsageError, match="rows 'x' and 'y' have the same prompt"):
        read_requests(dataset_from_rows([{"id": "x", "prompt": "q"}, {"id": "y", "prompt": "q"}]))
    with pytest.raises(UsageError, match="row 'x': the prompt must be text"):
        read_requests(dataset_from_rows([{"id": "x", "prompt": " "}]))


def test_an_editor_plans_behind_its_own_answer() -> None:
    asked: list[tuple[str, int]] = []

    def ask(prompt: str, attempt: int) -> str:
        asked.append((prompt, attempt))
        if "Write down the plan" not in prompt:
            return "Rest {query}."
        return "hm" if attempt == 0 else '```json\n{"needs": "rest", "safety_strategies": "refer; warn"}\n```'

    chain = TextEditor(ask).plan("I am tired")
    assert chain == SafetyChain("rest", safety_strategies=("refer", "warn"))
    assert asked[0] == ("I am tired", 0) and "Rest {query}." in asked[1][0] and [a for _, a in asked] == [0, 0, 1]
    with pytest.raises(UnreadableReply, match="the needs are missing"):
        TextEditor(lambda prompt, attempt: '```json\n{"intent": "none"}\n```').plan("q")
