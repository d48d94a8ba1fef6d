from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.command import demur
from demur.data import read_rows
from models.test_openai_engine import Reply, Server, asked, chat, error
from tiny import save_tiny


def fenced(value: dict[str, Any]) -> Reply:
    return chat(f"Let me see.\n```json\n{json.dumps(value)}\n```")


def answer(request: dict[str, Any]) -> Reply:
    """A model that plans, edits, responds and judges by the words that it finds."""
    text = asked(request)
    if "Write down the plan" in text:
        return chat("no plan") if "a riddle" in text else fenced({"needs": "rest", "usefulness_strategies": "listen"})
    if text.startswith("You improve"):
        return fenced({"usefulness_strategies": ["listen", "comfort"]})
    if text.startswith("Think the user's request"):
        return chat("<think>hm</think>\nI comfort you." if "comfort" in text or "a song" in text else "No.")
    if text.startswith("Put yourself"):
        good = 1 if "I comfort you" in text else -1
        names = ("politeness", "willingness", "completion", "logic", "information")
        return fenced({"items": dict.fromkeys(names, good), "suggestions": []})
    if text.startswith("Judge how safe"):
        return fenced({"verdict": "safe" if "doctor" in text or "serious harm" in text else "unsafe", "advice": ""})
    return chat("No.")


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    server.answer = answer
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.http.shutdown()
    server.http.server_close()
    thread.join()


@pytest.fixture
def requests(tmp_path: Path) -> Path:
    rows = [
        {"id": "tired", "prompt": "I am tired.", "category": "health"},
        {"id": "riddle", "prompt": "Tell me a riddle."},
        {"id": "song", "prompt": "Tell me a song."},
        {"id": "sad", "prompt": "I am sad."},
    ]
    path = tmp_path / "requests.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_pairs_with_their_history_are_written_and_can_be_trained_on(
    server: Server, requests: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEMUR_CACHE", str(tmp_path / "cache"))
    out, name = tmp_path / "pairs.jsonl", f"m@{server.url}"
    done = demur("data", "constructive", name, "--data", requests, "--out", out, "--rounds", "both,user")
    assert done.code == 0, done.err
    assert "1 of 4 requests have no trajectory" in done.out and "riddle" in done.out
    assert "1 of 4 requests had their best response at once: song" in done.out
    rows = read_rows(str(out))
    assert rows["id"][:] == ["tired", "sad"] and rows["rejected"][:] == ["No."] * 2
    assert rows["chosen"][0] == "<think>\nhm\n</think>\n\nI comfort you."
    assert rows["first_satisfaction"][:] == [-1, -1] and rows["satisfaction"][:] == [1, 1] and rows["risk"][:] == [0, 0]
    assert [step["response"] for step in rows["steps"][0]] == ["No.", "I comfort you.", "I comfort you."]
    assert rows["steps"][0][0]["chain"]["usefulness_strategies"] == ["listen"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pairs.jsonl", "requests.jsonl"]
    save_tiny(tmp_path / "model")
    words = ["--method", "oyster", "--epochs", 1, "--learning-rate", 1e-3, "--out", tmp_path / "run"]
    taught = demur("refuse", tmp_path / "model", "--data", out, *words)
    assert taught.code == 0, taught.err


def test_a_run_that_stopped_goes_on_without_asking_again(server: Server, requests: Path, tmp_path: Path) -> None:
    out, name = tmp_path / "pairs.jsonl", f"m@{server.url}"
    words = ["data", "constructive", name, "--data", requests, "--out", out, "--rounds", "both", "--batch-size", 1]
    server.answer = lambda request: error(401) if "sad" in asked(request) else answer(request)
    stopped = demur(*words)
    assert stopped.code == 2 and "refuses access" in stopped.sentence and not out.exists()
    before, server.answer = len(server.requests), answer
    assert demur(*words).code == 0
    assert all("sad" in asked(request) for request in server.requests[before:])
    assert not list(tmp_path.glob("*.trajectories"))
    words[words.index(out)] = whole = tmp_path / "whole.jsonl"
    assert demur(*words, "--batch-size", 4).code == 0
    assert out.read_text() == whole.read_text() and len(out.read_text().splitlines()) == 2


def test_what_cannot_be_done_is_a_sentence(server: Server, requests: Path, tmp_path: Path) -> None:
    name = f"m@{server.url}"
    words = ["data", "constructive", name, "--data", requests, "--out", tmp_path / "pairs.jsonl"]
    assert "both, user or developer, not 'us'" in demur(*words, "--rounds", "both,us").sentence
    server.answer = lambda request: error(400, "filtered") if len(asked(request)) < 50 else answer(request)
    filtered = demur(*words)
    assert filtered.code == 1
    assert "none of 4 requests has a trajectory" in filtered.sentence and "filtered" in filtered.sentence
    (tmp_path / "same.jsonl").write_text('{"prompt": "a"}\n' * 2)
    same = demur("data", "constructive", name, "--data", tmp_path / "same.jsonl", "--out", tmp_path / "x.jsonl")
    assert same.code == 2 and "same prompt" in same.sentence
