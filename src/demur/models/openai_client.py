"""Many requests to one OpenAI-compatible HTTP server: at once, paced, tried again, kept on disk as they are answered.

A request that gets no answer costs that request, not the run. What no retry can mend (key, address, credit) stops the
run at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import functools
import json
import logging
import os
import random
import sqlite3
import ssl
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import httpx
from pydantic import SecretStr

from demur.errors import DemurError, UsageError
from demur.files import hash_json

__all__ = ["Answer", "OpenAIClient", "RequestFailed", "WrongAddress"]

T = TypeVar("T")
Answer = dict[str, Any]

_log = logging.getLogger(__name__)
_clock = time.monotonic
_sleep = asyncio.sleep

_LONGEST_BACKOFF = 60.0  # seconds
_LONGEST_RETRY_AFTER = 600.0  # seconds; a server that asks for more is not coming back during this run
_CHARACTERS_PER_TOKEN = 4  # a first guess at a request's tokens, put right by the usage that the server reports
_LONG_RUN = 20  # requests from which a progress bar is shown


class RequestFailed(Exception):
    """This request gets no answer; the others go on."""


class WrongAddress(UsageError):
    """The server has nothing at this address, or not for this model."""


class OpenAIClient:
    """Sends batches of requests; the arguments are those of `OpenAIEngine`.

    Raises:
        UsageError: an argument is not usable.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str | None,
        *,
        concurrency: int,
        requests_per_minute: float | None,
        tokens_per_minute: float | None,
        retries: int,
        timeout: float,
        cache: str | os.PathLike[str] | None,
    ) -> None:
        self.base_url = _checked_url(base_url)
        self._key = SecretStr(_checked_key(api_key))
        for name, value, least in (("concurrency", concurrency, 1), ("retries", retries, 0)):
            if value < least:
                raise UsageError(f"{name} must be at least {least}, it is {value}")
        limits = {"requests_per_minute": requests_per_minute, "tokens_per_minute": tokens_per_minute}
        for name, limit in {**limits, "timeout": timeout}.items():
            if limit is not None and not limit > 0:
                raise UsageError(f"{name} must be above 0, it is {limit}")
        self.concurrency, self.retries, self.timeout = concurrency, retries, timeout
        self.cache = None if cache is None else Path(cache)
        self._pacer = _Pacer(requests_per_minute, tokens_per_minute)
        self._reached = False  # whether the server ever answered
        self._limit_name = "max_tokens"  # newer OpenAI models call it max_completion_tokens

    def fetch(
        self, path: str, requests: Sequence[Answer], read: Callable[[Any], Answer], label: str
    ) -> list[Answer | RequestFailed]:
        """What `read` makes of the server's answer to each request, in order; an identical request is sent once.

        Args:
            path: address below `base_url`.
            requests: JSON objects with the fields `model` and `max_tokens`.
            read: turns an answer's JSON object into what is kept of it, or raises `RequestFailed`.
            label: what the progress bar says.

        Raises:
            UsageError: the server refuses the key, has no such address or model, or the cache is no cache.
            DemurError: the server cannot be reached, its credit is used up, or the cache cannot be written.
        """
        keys = [hash_json([self.base_url, path, request]) for request in requests]
        with contextlib.closing(_Answers(self.cache)) as answers:
            todo = {key: request for key, request in zip(keys, requests, strict=True) if key not in answers}
            failures = _run_to_end(lambda: self._send_all(path, todo, read, answers, label)) if todo else {}
            if failures:
                reason = next(iter(failures.values()))
                _log.warning("%d of %d requests to %s failed: %s", len(failures), len(todo), self.base_url, reason)
            return [failures[key] if key in failures else answers[key] for key in keys]

    async def _send_all(
        self, path: str, todo: Mapping[str, Answer], read: Callable[[Any], Answer], answers: _Answers, label: str
    ) -> dict[str, RequestFailed]:
        """Send all requests, file the answers as they arrive, and return the failures."""
        failures: dict[str, RequestFailed] = {}
        waiting = iter(todo.items())
        timeouts = httpx.Timeout(None, connect=min(self.timeout, 10.0))
        limits = httpx.Limits(max_connections=self.concurrency, max_keepalive_connections=self.concurrency)
        async with httpx.AsyncClient(timeout=timeouts, limits=limits, auth=self._sign, verify=_tls()) as client:
            with _progress(label, len(todo)) as advance:

                async def work() -> None:
                    for key, request in waiting:
                        try:
                            answers[key] = await self._ask(client, path, request, read)
                        except RequestFailed as failure:
                            failures[key] = failure
                        advance()

                try:
                    async with asyncio.TaskGroup() as workers:
                        for _ in range(min(self.concurrency, len(todo))):
                            workers.create_task(work())
                except BaseExceptionGroup as group:
                    raise group.exceptions[0] from None
        return failures

    def _sign(self, request: httpx.Request) -> httpx.Request:
        if key := self._key.get_secret_value():
            request.headers["Authorization"] = f"Bearer {key}"
        return request

    async def _ask(
        self, client: httpx.AsyncClient, path: str, request: Answer, read: Callable[[Any], Answer]
    ) -> Answer:
        """One request with its retries."""
        guess = len(json.dumps(request)) // _CHARACTERS_PER_TOKEN + request["max_tokens"]
        reason = ""
        for attempt in range(self.retries + 1):
            await _sleep(self._pacer.reserve(guess))
            try:
                body = await self._post(client, path, request)
                self._pacer.settle(_used_tokens(body, guess) - guess)
                return _read(read, body)
            except _Again as problem:
                reason, wait = str(problem), min(_LONGEST_BACKOFF, 2.0**attempt) * random.uniform(0.5, 1.0)
                if problem.after is not None:
                    if problem.after > _LONGEST_RETRY_AFTER:
                        raise RequestFailed(f"{reason}; the server asks to wait {problem.after:.0f} s") from None
                    self._pacer.hold(problem.after)  # the other requests would only be turned away too
                    wait = problem.after + random.uniform(0.0, 1.0)
            if attempt < self.retries:
                await _sleep(wait)
        raise RequestFailed(f"{reason} (after {self.retries + 1} attempt{'s' if self.retries else ''})")

    async def _post(self, client: httpx.AsyncClient, path: str, request: Answer) -> Answer:
        """Send a request once and return the body of a good answer."""
        sent = dict(request)
        if path == "/chat/completions":
            sent[self._limit_name] = sent.pop("max_tokens")
        try:
            async with asyncio.timeout(self.timeout):
                response = await client.post(self.base_url + path, json=sent)
        except TimeoutError:
            raise _Again(f"no answer within {self.timeout:g} s") from None
        except httpx.HTTPError as error:
            reason = self._redact(str(error) or type(error).__name__)
            if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout) and not self._reached:
                raise DemurError(
                    f"cannot reach {self.base_url} ({reason}): check base_url and that the server is running"
                ) from None
            raise _Again(f"the connection failed ({reason})") from None
        self._reached = True
        if response.is_success:
            return self._body(response)
        problem = self._redact(_error_message(response))
        if response.status_code == 400 and "max_tokens" in sent and "max_completion_tokens" in problem:
            self._limit_name = "max_completion_tokens"
            return await self._post(client, path, request)
        raise self._refusal(response, path, str(request["model"]), problem)

    def _body(self, response: httpx.Response) -> Answer:
        """The JSON object of an answer that the server calls good."""
        if "text/html" in response.headers.get("content-type", ""):
            raise WrongAddress(f"{self.base_url} answers with a web page: check base_url, it usually ends in /v1")
        try:
            body = response.json()
        except ValueError:
            raise _Again("the answer is not JSON") from None
        if not isinstance(body, dict):
            raise _Again(f"the answer is not a JSON object but {type(body).__name__}")
        if body.get("error") and not body.get("choices"):  # some gateways report an error under status 200
            raise _Again(f"the server reports: {self._redact(_error_message(response))}")
        return body

    def _refusal(self, response: httpx.Response, path: str, model: str, problem: str) -> Exception:
        """The exception that says what an answer with an error status means for the run."""
        status = response.status_code
        says = f"{status} {response.reason_phrase}: {problem}".removesuffix(": ")
        if status in (401, 403):
            known = bool(self._key.get_secret_value())
            hint = "pass another api_key or set DEMUR_API_KEY" if known else "pass api_key or set DEMUR_API_KEY"
            return UsageError(f"{self.base_url} refuses access ({says}): {hint}")
        if status == 402 or (status == 429 and "insufficient_quota" in response.text):
            return DemurError(f"{self.base_url} has no credit left for this key ({says})")
        if status in (404, 405) or response.is_redirect:
            return WrongAddress(
                f"{self.base_url}{path} does not answer for model {model!r} ({says}): check base_url, which usually "
                "ends in /v1, and the model's name"
            )
        if status in (408, 429) or (status >= 500 and status != 501):
            return _Again(says, _retry_after(response))
        return RequestFailed(says)

    def _redact(self, text: str) -> str:
        """A server's words without the key, which some repeat."""
        key = self._key.get_secret_value()
        return text.replace(key, "***") if key else text


class _Again(Exception):
    """This request may succeed when it is sent again, `after` so many seconds where the server says so."""

    def __init__(self, reason: str, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = after


class _Pacer:
    """Token buckets for requests and tokens that hold one request's worth: even pacing, no bursts.

    A request takes its share of the minute when it is reserved; the next one waits until that share has passed.
    """

    def __init__(self, requests_per_minute: float | None, tokens_per_minute: float | None) -> None:
        self._request_cost = 60.0 / requests_per_minute if requests_per_minute else 0.0
        self._token_cost = 60.0 / tokens_per_minute if tokens_per_minute else 0.0
        self._requests_free = self._tokens_free = self._held_until = 0.0

    def reserve(self, tokens: int) -> float:
        """Take a place in the line and return the seconds to wait for it."""
        now = _clock()
        start = max(now, self._requests_free, self._tokens_free, self._held_until)
        self._requests_free = start + self._request_cost
        self._tokens_free = start + self._token_cost * tokens
        return start - now

    def settle(self, tokens: int) -> None:
        """Put a reservation right by the tokens that it took more (or fewer) than guessed."""
        self._tokens_free += self._token_cost * tokens

    def hold(self, seconds: float) -> None:
        """Let no new request start for so long."""
        self._held_until = max(self._held_until, _clock() + seconds)


class _Answers:
    """Answers by the hash of their request, in memory or in a file that has each of them as soon as it arrives."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        try:
            if file is not None:
                file.parent.mkdir(parents=True, exist_ok=True)
            # The thread of the event loop writes while the thread that opened it waits.
            self._database = sqlite3.connect(file or ":memory:", timeout=30, check_same_thread=False)
            self._database.execute("CREATE TABLE IF NOT EXISTS answers (request TEXT PRIMARY KEY, answer TEXT)")
        except (OSError, sqlite3.Error) as error:
            raise UsageError(f"cannot use {file} as a cache of answers ({error}): choose another file") from error

    def _find(self, key: str) -> Any:
        return self._database.execute("SELECT answer FROM answers WHERE request = ?", (key,)).fetchone()

    def __contains__(self, key: str) -> bool:
        return self._find(key) is not None

    def __getitem__(self, key: str) -> Answer:
        answer: Answer = json.loads(self._find(key)[0])
        return answer

    def __setitem__(self, key: str, answer: Answer) -> None:
        try:
            with self._database:
                self._database.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, json.dumps(answer)))
        except sqlite3.Error as error:
            raise DemurError(f"cannot write the cache of answers {self._file}: {error}") from error

    def close(self) -> None:
        self._database.close()


def _run_to_end(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine from synchronous code, also where an event loop already runs (a notebook)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work())
    cancel: list[Callable[[], object]] = []

    async def cancellable() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        cancel.append(lambda: loop.call_soon_threadsafe(task.cancel))
        return await work()

    with ThreadPoolExecutor(1) as thread:
        future = thread.submit(lambda: asyncio.run(cancellable()))
        try:
            return future.result()
        except KeyboardInterrupt:
            for stop in cancel:
                stop()
            raise


@contextlib.contextmanager
def _progress(label: str, total: int) -> Iterator[Callable[[], None]]:
    """A progress bar with the time left, for long runs on a terminal or in a notebook."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, emoji=False)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    hidden = total < _LONG_RUN or not (console.is_terminal or console.is_jupyter)
    with Progress(*columns, console=console, disable=hidden) as progress:
        task = progress.add_task(label, total=total)
        yield lambda: progress.advance(task)


@functools.cache
def _tls() -> ssl.SSLContext:
    return httpx.create_ssl_context()  # reading the certificates takes longer than many a request


def _checked_url(base_url: str) -> str:
    """The address without a slash at its end; refused where no request could work or it holds a secret."""
    try:
        url = httpx.URL(base_url.strip().rstrip("/"))
    except httpx.InvalidURL:
        raise UsageError("base_url is not an address: give one like http://localhost:8000/v1") from None
    if url.userinfo or url.query:
        raise UsageError("base_url must not hold a password or a query: pass the key as api_key")
    if url.scheme not in ("http", "https") or not url.host:
        raise UsageError(f"base_url {base_url!r} must start with http:// or https:// and name a host")
    if url.path.endswith("/completions"):
        raise UsageError(f"base_url {base_url!r} must end before /chat/completions or /completions, usually in /v1")
    return str(url).rstrip("/")


def _checked_key(api_key: str | None) -> str:
    key = (api_key or os.environ.get("DEMUR_API_KEY") or os.environ.get("OPENAI_API_KEY") or "").strip()
    if not (key.isascii() and key.isprintable()):
        raise UsageError("the API key holds characters that no HTTP header may have: check how it was copied")
    return key


def _used_tokens(body: Answer, guess: int) -> int:
    usage = body.get("usage")
    used = usage.get("total_tokens") if isinstance(usage, dict) else None
    return used if isinstance(used, int) else guess


def _read(read: Callable[[Any], Answer], body: Answer) -> Answer:
    try:
        return read(body)
    except (KeyError, IndexError, TypeError, AttributeError):
        raise _Again("the answer is not a completion") from None


def _error_message(response: httpx.Response) -> str:
    """The server's own words about an error, at most 300 characters."""
    try:
        body = response.json()
    except ValueError:
        body = response.text
    for name in ("error", "message", "detail"):
        if isinstance(body, dict) and body.get(name):
            body = body[name]
    return " ".join(str(body).split())[:300]


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds to wait by the Retry-After header, which gives seconds or a date."""
    value = response.headers.get("retry-after", "")
    with contextlib.suppress(ValueError):
        return max(0.0, float(value))
    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, (email.utils.parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    return None
