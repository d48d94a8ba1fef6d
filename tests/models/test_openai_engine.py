from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import re
import signal
import sqlite3
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demur.errors import DemurError, UsageError
from demur.models import openai_client
from demur.models.engine import Engine, Generation
from demur.models.openai_engine import OpenAIEngine

KEY = "sk-very-secret-0123456789"
Reply = tuple[int, dict[str, str], bytes]


def reply(body: Any, status: int = 200, **headers: str) -> Reply:
    """An answer of the test server: JSON unless it is given as bytes."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return status, {"Content-Type": "application/json", **{k.replace("_", "-"): v for k, v in headers.items()}}, data


def chat(text: Any, finish: str | None = "stop", **message: Any) -> Reply:
    return reply({"choices": [{"message": {"content": text, **message}, "finish_reason": finish}]})


def error(status: int, message: str = "no", **headers: str) -> Reply:
    return reply({"error": {"message": message}}, status, **headers)


class Server:
    """A real HTTP server on this machine that answers with `answer(request body)` and remembers what it was asked."""

    def __init__(self) -> None:
        self.answer: Callable[[dict[str, Any]], Reply | None] = lambda request: chat(asked(request).upper())
        self.requests: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.keys: list[str | None] = []
        self.released = threading.Event()  # lets go of answers that a test holds back
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.requests.append(request)
                outer.paths.append(self.path)
                outer.keys.append(self.headers["Authorization"])
                answer = outer.answer(request)
                if answer is None:  # hang up without a word
                    self.close_connection = True
                    return
                status, headers, data = answer
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(data))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args: Any) -> None:
                pass

            def handle(self) -> None:
                try:
                    super().handle()
                except ConnectionError:  # the engine gave up on this request
                    self.close_connection = True

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def answers(self, *replies: Reply | None) -> None:
        """Give these answers one after another, and the last one for ever."""
        left = list(replies)
        lock = threading.Lock()

        def take(request: dict[str, Any]) -> Reply | None:
            with lock:
                return left.pop(0) if len(left) > 1 else left[0]

        self.answer = take


def asked(request: dict[str, Any]) -> str:
    return str(request["messages"][-1]["content"])


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.released.set()
    server.http.shutdown()
    server.http.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The engine's waits, which pass at once; and an environment without keys and proxies."""
    for name in list(os.environ):
        if name.upper().endswith("_PROXY") or name in ("OPENAI_API_KEY", "DEMUR_API_KEY"):
            monkeypatch.delenv(name)
    waits: list[float] = []
    now = [1000.0]

    async def sleep(seconds: float) -> None:
        if seconds > 0:
            waits.append(seconds)
            now[0] += seconds
        await asyncio.sleep(0)

    monkeypatch.setattr(openai_client, "_sleep", sleep)
    monkeypatch.setattr(openai_client, "_clock", lambda: now[0])
    return waits


def engine(server: Server, **options: Any) -> OpenAIEngine:
    return OpenAIEngine(server.url, "m", KEY, **options)


def test_it_is_an_engine(server: Server) -> None:
    assert isinstance(engine(server), Engine)


def test_answers_keep_the_order_of_the_prompts_whatever_order_they_arrive_in(server: Server) -> None:
    later_ones_answered = threading.Event()

    def answer(request: dict[str, Any]) -> Reply:
        if asked(request) == "a":
            assert later_ones_answered.wait(10)
        if asked(request) == "d":
            later_ones_answered.set()
        return chat(asked(request).upper())

    server.answer = answer
    assert [g.text for g in engine(server, concurrency=2).generate(["a", "b", "c", "d"])] == ["A", "B", "C", "D"]
    assert engine(server).generate([]) == []


def test_a_request_says_what_was_asked_for(server: Server) -> None:
    engine(server, system="Be brief.").generate(["hello"], max_new_tokens=7, temperature=0.5, top_p=0.9, stop=["\n"])
    assert server.requests == [
        {
            "model": "m",
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}],
            "max_tokens": 7,
            "temperature": 0.5,
            "top_p": 0.9,
            "stop": ["\n"],
            "seed": 0,
        }
    ]
    assert server.paths == ["/v1/chat/completions"]
    assert server.keys == [f"Bearer {KEY}"]


def test_a_chat_keeps_its_own_system_message(server: Server) -> None:
    own = [{"role": "system", "content": "Mine."}, {"role": "user", "content": "hello"}]
    without = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    engine(server, system="Be brief.", concurrency=1).generate([own, without])
    assert server.requests[0]["messages"] == own
    assert server.requests[1]["messages"] == [{"role": "system", "content": "Be brief."}, *without]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (chat("yes"), Generation("yes", (), "stop")),
        (chat("yes", "length"), Generation("yes", (), "length")),
        (chat("yes", None), Generation("yes", (), "stop")),
        (chat(None, "length"), Generation("", (), "length")),
        (chat(None, refusal="I cannot."), Generation("I cannot.", (), "stop")),
        (
            chat("half an ans", "content_filter"),
            Generation("", (), "error", "the server's content filter withheld the answer"),
        ),
    ],
)
def test_the_finish_is_the_servers(server: Server, answer: Reply, expected: Generation) -> None:
    server.answers(answer)
    assert engine(server).generate(["x"]) == [expected]


def test_unicode_passes_both_ways(server: Server) -> None:
    texts = ["Grüße, Ωmega", "日本語 🇯🇵", "a\u0000b", 'quote " and \\']
    server.answer = lambda request: chat(asked(request))
    assert [g.text for g in engine(server).generate(texts)] == texts


def test_half_a_surrogate_pair_is_replaced_in_an_answer_and_refused_in_a_prompt(server: Server, tmp_path: Path) -> None:
    server.answers(reply(rb'{"choices": [{"message": {"content": "a\ud83d"}, "finish_reason": "stop"}]}'))
    assert engine(server, cache=tmp_path / "c").generate(["x"])[0].text == "a?"
    with pytest.raises(UsageError, match="prompt 1 is not valid Unicode"):
        engine(server).generate(["x", "a\ud83d"])


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ("abc", "prompts must be a list of prompts, it is one string"),
        (["a", None], "prompt 1 must be text or a list of messages"),
        ([[]], "prompt 0 must be text or a list of messages"),
        ([[{"role": "user"}]], "prompt 0 has a message without role and content"),
        ([[{"role": "user", "content": 3}]], "prompt 0 must be text, it is int"),
    ],
)
def test_malformed_prompts_are_refused_before_anything_is_sent(server: Server, prompts: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        engine(server).generate(prompts)
    assert not server.requests


@pytest.mark.parametrize("options", [{"max_new_tokens": 0}, {"temperature": -0.1}, {"top_p": 0.0}])
def test_options_out_of_range_are_refused(server: Server, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="generate needs"):
        engine(server).generate(["x"], **options)


# Retries


def test_retry_after_is_honoured(server: Server, waits: list[float]) -> None:
    server.answers(error(429, Retry_After="7"), chat("yes"))
    assert engine(server).generate(["x"])[0].text == "yes"
    assert len(server.requests) == 2
    assert len(waits) == 1 and 7 <= waits[0] <= 8


def test_retry_after_holds_the_other_requests_too(server: Server, waits: list[float]) -> None:
    server.answers(error(429, Retry_After="30"), chat("yes"))
    client = engine(server, retries=0)
    assert client.generate(["x"])[0].finish == "error"
    assert not waits
    assert client.generate(["y"])[0].text == "yes"
    assert waits == [30]


def test_backoff_doubles_with_jitter(server: Server, waits: list[float]) -> None:
    server.answers(error(500), error(503), error(529), error(429), chat("yes"))
    assert engine(server).generate(["x"])[0].text == "yes"
    assert len(waits) == 4
    for i, wait in enumerate(waits):
        assert 2**i / 2 <= wait <= 2**i


@pytest.mark.parametrize(
    ("value", "expected"),
    [("3", 3), ("-2", 0), ("nan", 0), ("Wed, 21 Oct 2015 07:28:00 GMT", 0), ("soon", None), ("", None)],
)
def test_retry_after_gives_seconds_or_a_date(server: Server, value: str, expected: float | None) -> None:
    assert openai_client._retry_after(openai_client.httpx.Response(429, headers={"Retry-After": value})) == expected


def test_a_server_that_asks_to_wait_for_hours_is_not_waited_for(server: Server, waits: list[float]) -> None:
    server.answers(error(503, "maintenance", Retry_After="Wed, 21 Oct 2099 07:28:00 GMT"))
    [answer] = engine(server).generate(["x"])
    assert answer.finish == "error" and "maintenance; the server asks to wait" in str(answer.error)
    assert not waits


def test_a_prompt_that_fails_is_counted_and_the_others_are_answered(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    server.answer = lambda request: error(500, "boom") if asked(request) == "b" else chat("yes")
    answers = engine(server, retries=2).generate(["a", "b", "c"])
    assert [g.finish for g in answers] == ["stop", "error", "stop"]
    assert answers[1].error == "500 Internal Server Error: boom (after 3 attempts)"
    assert [asked(r) for r in server.requests].count("b") == 3
    assert "1 of 3 requests to" in caplog.text and "boom" in caplog.text


@pytest.mark.parametrize("status", [400, 409, 413, 422, 501])
def test_other_errors_are_not_tried_again(server: Server, waits: list[float], status: int) -> None:
    server.answers(error(status, "too long"))
    [answer] = engine(server).generate(["x"])
    assert answer.finish == "error" and str(answer.error).startswith(f"{status} ")
    assert str(answer.error).endswith("too long")
    assert len(server.requests) == 1 and not waits


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"{}",
        b'{"choices": []}',
        b'{"choices": [{"message": {"content": 3}}]}',
        b'{"choices": [{"message": null}]}',
    ],
)
def test_an_unreadable_answer_is_tried_again_and_then_an_error(server: Server, body: bytes) -> None:
    server.answers(reply(body), chat("yes"))
    assert engine(server).generate(["x"]) == [Generation("yes", (), "stop")]
    server.answers(reply(body))
    [answer] = engine(server, retries=1).generate(["x"])
    assert answer.finish == "error" and str(answer.error).endswith("(after 2 attempts)")


def test_an_error_under_a_good_status_is_tried_again_and_keeps_its_reason(server: Server) -> None:
    server.answers(error(200, "overloaded"), chat("yes"))
    assert engine(server).generate(["x"])[0].text == "yes"
    server.answers(error(200, "overloaded"))
    assert engine(server, retries=0).generate(["x"])[0].error == "the server reports: overloaded (after 1 attempt)"


def test_a_timeout_is_tried_again_and_then_an_error(server: Server) -> None:
    def answer(request: dict[str, Any]) -> Reply:
        server.released.wait(10)
        return chat("late")

    server.answer = answer
    [answer_] = engine(server, timeout=0.05, retries=1).generate(["x"])
    assert answer_.error == "no answer within 0.05 s (after 2 attempts)"
    assert len(server.requests) == 2


def test_a_broken_connection_is_tried_again(server: Server) -> None:
    server.answers(None, chat("yes"))
    assert engine(server).generate(["x"])[0].text == "yes"


def test_a_server_that_goes_away_later_costs_the_prompts_not_the_run(server: Server) -> None:
    client = engine(server, retries=1)
    client.generate(["x"])
    client._client.base_url = "http://127.0.0.1:9/v1"
    assert "connection failed" in str(client.generate(["y"])[0].error)


# What stops a run


def test_a_server_that_cannot_be_reached_stops_the_run(waits: list[float]) -> None:
    with pytest.raises(DemurError, match=r"cannot reach http://127\.0\.0\.1:9/v1 .*check base_url"):
        OpenAIEngine("http://127.0.0.1:9/v1", "m").generate(["x"])
    assert not waits


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_stops_the_run_at_once_and_is_not_repeated(server: Server, status: int) -> None:
    server.answers(error(status, f"Incorrect API key provided: {KEY}."))
    with pytest.raises(UsageError, match=rf"refuses access \({status} .*\*\*\*.*set DEMUR_API_KEY") as caught:
        engine(server, concurrency=2).generate([str(i) for i in range(50)])
    assert len(server.requests) <= 2
    assert KEY not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "answer",
    [
        error(404, "model m does not exist"),
        error(405),
        reply(b"", 301, Location="https://elsewhere.example/"),
        (200, {"Content-Type": "text/html; charset=utf-8"}, b"<html>Welcome</html>"),
    ],
)
def test_a_wrong_address_stops_the_run_at_once(server: Server, answer: Reply) -> None:
    server.answers(answer)
    with pytest.raises(UsageError, match=r"check base_url"):
        engine(server, concurrency=2).generate([str(i) for i in range(50)])
    assert len(server.requests) <= 2


@pytest.mark.parametrize(
    "answer",
    [error(402, "top up"), reply({"error": {"message": "You exceeded", "code": "insufficient_quota"}}, 429)],
)
def test_used_up_credit_stops_the_run_at_once(server: Server, answer: Reply, waits: list[float]) -> None:
    server.answers(answer)
    with pytest.raises(DemurError, match="no credit left"):
        engine(server).generate(["x"])
    assert not waits


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("localhost:8000/v1", "must start with http"),
        ("", "must start with http"),
        ("ftp://host/v1", "must start with http"),
        ("http://", "must start with http"),
        ("http://host/v1/chat/completions", "must end before /chat/completions"),
        ("http://host:port/v1", "not an address"),
        (f"http://user:{KEY}@host/v1", "pass the key as api_key"),
        (f"http://host/v1?key={KEY}", "pass the key as api_key"),
    ],
)
def test_an_unusable_address_is_refused_at_once(url: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        OpenAIEngine(url, "m")
    assert KEY not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "options",
    [{"concurrency": 0}, {"retries": -1}, {"timeout": 0}, {"requests_per_minute": 0}, {"tokens_per_minute": -1}],
)
def test_unusable_options_are_refused_by_name(server: Server, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        engine(server, **options)


# The key


def test_the_key_is_nowhere_to_be_seen(server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    server.answers(error(400, f"bad request with {KEY}"), error(500, KEY), chat(f"echo {KEY[:3]}"))
    client = engine(server, cache=tmp_path / "answers.sqlite", concurrency=1)
    answers = client.generate(["x", "y"])
    assert KEY not in str(answers) and "***" in str(answers[0].error)
    assert KEY not in repr(client) + str(client) + repr(vars(client)) + repr(vars(client._client))
    assert KEY not in caplog.text
    assert KEY.encode() not in (tmp_path / "answers.sqlite").read_bytes()


def test_a_key_that_no_header_can_carry_is_refused_without_showing_it() -> None:
    for key in (f"{KEY}\nX: y", f"{KEY}é"):
        with pytest.raises(UsageError, match="check how it was copied") as caught:
            OpenAIEngine("http://host/v1", "m", key)
        assert KEY not in str(caught.value)


def test_the_key_comes_from_the_environment_when_none_is_given(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def sent() -> str | None:
        OpenAIEngine(server.url, "m").generate(["x"])
        return server.keys[-1]

    assert sent() is None
    monkeypatch.setenv("OPENAI_API_KEY", "one\n")
    assert sent() == "Bearer one"
    monkeypatch.setenv("DEMUR_API_KEY", "two")
    assert sent() == "Bearer two"


# Many requests


def test_as_many_requests_as_allowed_are_under_way_and_never_more(server: Server) -> None:
    together = threading.Barrier(4)
    lock, under_way, most = threading.Lock(), 0, 0

    def answer(request: dict[str, Any]) -> Reply:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        together.wait(10)  # breaks unless four requests are under way at once
        with lock:
            under_way -= 1
        return chat("yes")

    server.answer = answer
    answers = engine(server, concurrency=4).generate([str(i) for i in range(16)])
    assert {g.finish for g in answers} == {"stop"}
    assert most == 4


@given(
    tokens=st.lists(st.tuples(st.integers(1, 500), st.integers(0, 500)), min_size=1, max_size=40),
    requests_per_minute=st.integers(1, 600),
    tokens_per_minute=st.integers(100, 10_000),
)
def test_no_minute_holds_more_than_the_limits_and_one_request(
    tokens: list[tuple[int, int]], requests_per_minute: int, tokens_per_minute: int
) -> None:
    now = 50.0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(openai_client, "_clock", lambda: now)
        pacer = openai_client._Pacer(requests_per_minute, tokens_per_minute)
        sent = []
        for guess, used in tokens:
            wait = pacer.reserve(guess)
            assert wait >= 0
            now += wait
            pacer.settle(used - guess)
            sent.append((now, used))
    largest = max(used for _, used in tokens)
    for start, _ in sent:
        minute = [used for when, used in sent if start <= when < start + 60 - 1e-6]
        assert len(minute) <= requests_per_minute + 1
        assert sum(minute) <= tokens_per_minute + largest


def test_the_limits_pace_the_requests(server: Server, waits: list[float]) -> None:
    engine(server, requests_per_minute=30, concurrency=1).generate(["a", "b", "c"])
    assert waits == pytest.approx([2, 2])


def test_tokens_are_counted_by_the_servers_own_count(server: Server, waits: list[float]) -> None:
    body = {"choices": [{"message": {"content": "yes"}}], "usage": {"total_tokens": 50}}
    server.answers(reply(body))
    engine(server, tokens_per_minute=600, concurrency=1).generate(["a", "b", "c"], max_new_tokens=500)
    assert waits == pytest.approx([5, 5])


def test_repeated_prompts_are_sent_once_when_greedy_and_get_their_own_seeds_when_sampled(server: Server) -> None:
    greedy = engine(server).generate(["a", "b", "a"])
    assert [g.text for g in greedy] == ["A", "B", "A"]
    assert sorted(map(asked, server.requests)) == ["a", "b"]

    def seeds(prompts: list[str], seed: int) -> list[int]:
        server.answer = lambda request: chat(str(request["seed"]))
        return [int(g.text) for g in engine(server).generate(prompts, temperature=1.0, seed=seed)]

    first = seeds(["a", "b", "a", "a"], seed=3)
    assert first[0] == first[1] == 3 and len(set(first)) == 3
    assert seeds(["a", "a", "a"], seed=3) == [first[0], first[2], first[3]]
    assert not set(first) & set(seeds(["a", "b", "a", "a"], seed=4))


def test_models_that_renamed_the_length_limit_are_asked_by_the_new_name(server: Server) -> None:
    def answer(request: dict[str, Any]) -> Reply:
        if "max_tokens" in request:
            return error(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
        return chat(str(request["max_completion_tokens"]))

    server.answer = answer
    answers = engine(server, concurrency=1, retries=0).generate(["a", "b", "c"], max_new_tokens=9)
    assert [g.text for g in answers] == ["9", "9", "9"]
    assert len(server.requests) == 4


def test_it_works_inside_a_running_event_loop(server: Server) -> None:
    async def notebook_cell() -> list[Generation]:
        return engine(server).generate(["a", "b"])

    assert [g.text for g in asyncio.run(notebook_cell())] == ["A", "B"]
    server.answers(error(401))

    async def refused() -> None:
        engine(server).generate(["a"])

    with pytest.raises(UsageError, match="refuses access"):
        asyncio.run(refused())


def test_several_threads_may_use_one_engine(server: Server) -> None:
    client = engine(server)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda text: client.generate([text])[0].text, "abcdefgh"))
    assert answers == list("ABCDEFGH")


@pytest.fixture
def sigint() -> Iterator[None]:
    """Ctrl-C as in a terminal, also where the tests run in the background and inherit that it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupt_at(server: Server, prompt: str) -> None:
    """Answer the prompts before `prompt`; there press Ctrl-C and answer no more."""

    def answer(request: dict[str, Any]) -> Reply:
        if asked(request) == prompt:
            os.kill(os.getpid(), signal.SIGINT)
            server.released.wait(10)
        return chat("yes")

    server.answer = answer


@pytest.mark.usefixtures("sigint")
@pytest.mark.parametrize("where", ["script", "notebook"])
def test_ctrl_c_leaves_cleanly_and_keeps_what_was_answered(server: Server, tmp_path: Path, where: str) -> None:
    client = engine(server, concurrency=1, cache=tmp_path / "answers.sqlite")
    prompts = ["a", "b", "c", "d"]
    interrupt_at(server, "c")
    threads = {t for t in threading.enumerate() if "process_request" not in t.name}
    with pytest.raises(KeyboardInterrupt):
        if where == "script":
            client.generate(prompts)
        else:

            async def cell() -> None:
                client.generate(prompts)

            loop = asyncio.new_event_loop()
            try:
                loop.run_until_complete(cell())
            finally:
                loop.close()
    assert {t for t in threading.enumerate() if "process_request" not in t.name} <= threads
    server.released.set()
    server.requests.clear()
    server.answer = lambda request: chat("yes")
    assert [g.text for g in client.generate(prompts)] == ["yes"] * 4
    assert [asked(r) for r in server.requests] == ["c", "d"]


def test_a_long_run_shows_its_progress_on_a_terminal(
    server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    engine(server).generate([str(i) for i in range(25)])
    assert re.search(r"generating.*25/25", re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", capsys.readouterr().err))
    engine(server).generate(["short"])
    monkeypatch.delenv("FORCE_COLOR")
    engine(server).generate([str(i) for i in range(25)])
    assert capsys.readouterr().err.strip() == ""


# The cache


def test_an_answered_request_is_not_sent_again(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "deep" / "answers.sqlite"
    first = engine(server, cache=file).generate(["a", "b"])
    assert engine(server, cache=file).generate(["b", "a", "ü"]) == [first[1], first[0], Generation("Ü", (), "stop")]
    assert len(server.requests) == 3


@pytest.mark.parametrize("change", [{"max_new_tokens": 5}, {"temperature": 1.0}, {"stop": ["x"]}, {"top_p": 0.5}])
def test_another_request_is_sent(server: Server, tmp_path: Path, change: dict[str, Any]) -> None:
    client = engine(server, cache=tmp_path / "answers.sqlite")
    client.generate(["a"])
    client.generate(["a"], **change)
    assert len(server.requests) == 2


def test_another_model_or_system_message_is_asked(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "answers.sqlite"
    for model, system in (("m", None), ("n", None), ("m", "s")):
        OpenAIEngine(server.url, model, system=system, cache=file).generate(["a"])
    assert len(server.requests) == 3


def test_errors_are_not_kept(server: Server, tmp_path: Path) -> None:
    client = engine(server, cache=tmp_path / "answers.sqlite", retries=0)
    server.answers(error(500))
    assert client.generate(["a"])[0].finish == "error"
    server.answers(chat("yes"))
    assert client.generate(["a"])[0].text == "yes"


def test_a_file_that_is_no_cache_is_refused_and_left_alone(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("my notes " * 200)
    with pytest.raises(UsageError, match=r"cannot use .*notes\.txt as a cache"):
        engine(server, cache=file).generate(["a"])
    with pytest.raises(UsageError, match="as a cache"):
        engine(server, cache=tmp_path).generate(["a"])
    assert file.read_text() == "my notes " * 200 and not server.requests


def test_a_cache_that_cannot_be_written_stops_the_run(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "answers.sqlite"
    engine(server, cache=file).generate(["a"])
    with sqlite3.connect(file) as database:
        database.execute("CREATE TRIGGER full BEFORE INSERT ON answers BEGIN SELECT RAISE(FAIL, 'disk is full'); END")
    with pytest.raises(DemurError, match=r"cannot write the cache of answers .*disk is full"):
        engine(server, cache=file).generate(["b"])


# Scoring


def tokenize(text: str) -> list[str]:
    """Words with the space before them; a full stop joins the word before it, as merges in a tokenizer may."""
    return re.findall(r"\s*\S+|\s+", text)


def token_logp(tokens: list[str], i: int) -> float:
    return -0.125 * (i + len(tokens[i]))


def scoring_server(request: dict[str, Any], begin: list[str], usage: bool = True) -> Reply:
    assert request["echo"] is True and request["logprobs"] >= 1 and request["max_tokens"] == 1
    given = [*begin, *tokenize(request["prompt"])]
    logps = [None, *(token_logp(given, i) for i in range(1, len(given)))]
    scored = {"tokens": [*given, " generated"], "token_logprobs": [*logps, -9.0]}
    body = {"choices": [{"text": request["prompt"] + " generated", "logprobs": scored}]}
    return reply({**body, "usage": {"completion_tokens": 1, "total_tokens": 9}} if usage else body)


@pytest.mark.parametrize("begin", [[], ["<s>"]])
@pytest.mark.parametrize("usage", [True, False])
def test_a_score_is_the_sum_over_the_responses_tokens(server: Server, begin: list[str], usage: bool) -> None:
    server.answer = lambda request: scoring_server(request, begin, usage)
    prompts, responses = ["Who is it?", "Who is it?", "A longer question?"], [" It is me", "", " 日本 語"]
    scores = engine(server).score(prompts, responses)
    for prompt, response, score in zip(prompts, responses, scores, strict=True):
        tokens = [*begin, *tokenize(prompt + response)]
        own = range(len(begin) + len(tokenize(prompt)), len(tokens))
        assert score.tokens == len(own) == len(response.split())
        assert score.logp == pytest.approx(sum(token_logp(tokens, i) for i in own))
    assert set(server.paths) == {"/v1/completions"}
    # The trial, two distinct prompts, and two texts more; an empty response leaves the prompt as it was.
    assert len(server.requests) == 5


def test_a_token_that_spans_prompt_and_response_is_the_responses(server: Server) -> None:
    server.answer = lambda request: scoring_server(request, [])
    [score] = engine(server).score(["the answer"], ["ed one"])
    tokens = ["the", " answered", " one"]
    assert score.tokens == 2
    assert score.logp == pytest.approx(token_logp(tokens, 1) + token_logp(tokens, 2))


def test_what_the_server_generates_is_not_taken_for_the_response(server: Server) -> None:
    server.answer = lambda request: scoring_server(request, [])
    [score] = engine(server).score(["a b"], [" generated text"])
    assert score.tokens == 2


def test_a_response_without_a_log_probability_is_nan(server: Server) -> None:
    server.answer = lambda request: scoring_server(request, [])
    [score] = engine(server).score(["a"], ["b c"])  # one token from the text's very start, which nothing precedes
    assert math.isnan(score.logp) and score.tokens == 0


def test_scores_come_from_the_cache(server: Server, tmp_path: Path) -> None:
    server.answer = lambda request: scoring_server(request, [])
    first = engine(server, cache=tmp_path / "c").score(["a b c", "d e"], [" x", " y"])
    sent = len(server.requests)
    assert engine(server, cache=tmp_path / "c").score(["a b c", "d e"], [" x", " y"]) == first
    assert len(server.requests) == sent


def test_one_response_that_fails_is_nan_and_the_others_are_scored(server: Server) -> None:
    server.answer = lambda request: (
        error(400, "too long") if "huge" in request["prompt"] else scoring_server(request, [])
    )
    good, bad = engine(server).score(["a b c", "a b c"], [" x", " huge"])
    assert good.tokens == 1
    assert math.isnan(bad.logp) and bad.tokens == 0


def only_generated(request: dict[str, Any]) -> Reply:
    scored = {"tokens": [" five"], "token_logprobs": [-0.1]}
    return reply({"choices": [{"text": request["prompt"] + " five", "logprobs": scored}]})


@pytest.mark.parametrize(
    "answer",
    [
        lambda request: error(404),
        lambda request: error(400, "echo is not supported"),
        lambda request: reply({"choices": [{"text": "five", "logprobs": None}]}),
        lambda request: reply({"choices": [{"text": "five", "logprobs": {"content": []}}]}),
        only_generated,
    ],
)
def test_a_server_that_cannot_score_is_found_out_before_the_run(
    server: Server, answer: Callable[[dict[str, Any]], Reply]
) -> None:
    server.answer = answer
    with pytest.raises(UsageError, match="does not give the log-probabilities of a given text"):
        engine(server).score(["a"] * 30, [" b"] * 30)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("prompts", "responses", "options", "message"),
    [
        (["a", "b"], ["x"], {}, "it got 2 and 1"),
        (["a", [{"role": "user", "content": "b"}]], ["x", "y"], {}, "prompt 1 cannot be scored over HTTP"),
        (["a", ""], ["x", "y"], {}, "prompt 1 cannot be scored over HTTP"),
        (["a"], ["x"], {"system": "s"}, "prompt 0 cannot be scored over HTTP"),
        (["a"], [None], {}, "response 0 must be text"),
    ],
)
def test_what_cannot_be_scored_is_refused_before_anything_is_sent(
    server: Server, prompts: Any, responses: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        engine(server, **options).score(prompts, responses)
    assert not server.requests


def test_nothing_is_scored_for_nothing(server: Server) -> None:
    assert engine(server).score([], []) == []
    assert not server.requests
