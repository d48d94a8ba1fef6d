"""An engine over any server that speaks OpenAI's HTTP interface: OpenAI, vLLM, SGLang, llama.cpp, a gateway."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from demur.errors import UsageError
from demur.files import hash_json
from demur.models.engine import Generation, Prompt, ResponseScore
from demur.models.openai_client import Answer, OpenAIClient, RequestFailed, WrongAddress

__all__ = ["OpenAIEngine"]


class OpenAIEngine:
    """Generates and scores through an OpenAI-compatible HTTP server; usable in notebooks as in scripts.

    Args:
        base_url: address up to and including the version, for instance `http://localhost:8000/v1`.
        model: the model's name on that server.
        api_key: the key; None takes `$DEMUR_API_KEY`, else `$OPENAI_API_KEY`, else sends none. Never shown or stored.
        concurrency: most requests under way at once.
        requests_per_minute: most requests a minute, evenly spaced; None for no limit.
        tokens_per_minute: most prompt and answer tokens a minute, by the server's own count; None for no limit.
        retries: how often a request is sent again after 408, 429, 5xx, a timeout, a broken connection or an unreadable
            answer; waits double from 1 s, or are what `Retry-After` says.
        timeout: seconds that one request may take.
        system: system message put before every prompt that has none of its own.
        cache: SQLite file that keeps each answer as it arrives, so that the same request is never paid for twice;
            failed requests are not kept. None keeps nothing.

    Raises:
        UsageError: an argument is not usable.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        api_key: str | None = None,
        *,
        concurrency: int = 8,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        retries: int = 5,
        timeout: float = 60.0,
        system: str | None = None,
        cache: str | os.PathLike[str] | None = None,
    ) -> None:
        self.model, self.system = model, system
        self._client = OpenAIClient(
            base_url,
            api_key,
            concurrency=concurrency,
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
            retries=retries,
            timeout=timeout,
            cache=cache,
        )
        self._echoes = False  # whether the server was seen to score given text

    @property
    def base_url(self) -> str:
        """The server's address, without a slash at its end."""
        return self._client.base_url

    def __repr__(self) -> str:
        return f"OpenAIEngine(base_url={self.base_url!r}, model={self.model!r})"

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        max_new_tokens: int = 200,
        temperature: float = 0.0,
        top_p: float = 1.0,
        stop: Sequence[str] = (),
        seed: int = 0,
    ) -> list[Generation]:
        """Answer each prompt through `/chat/completions`; see `Engine.generate`.

        The n-th repetition of a prompt is sampled with a seed of its own, drawn from `seed` and n, so that repetitions
        differ and answers do not depend on the other prompts. At temperature 0 a repeated prompt is sent once.

        Returns:
            One generation a prompt, in order, without token ids (the interface does not give them). A prompt that got
            no answer has `finish="error"` and the reason.

        Raises:
            UsageError: a prompt or option is malformed, or the server refuses the key or has no such address or model.
            DemurError: the server cannot be reached, its credit is used up, or the cache cannot be written.
        """
        if max_new_tokens < 1 or temperature < 0 or not 0 < top_p <= 1:
            raise UsageError("generate needs max_new_tokens >= 1, temperature >= 0 and 0 < top_p <= 1")
        options: Answer = {"max_tokens": max_new_tokens, "temperature": temperature}
        options |= {"top_p": top_p} if top_p != 1 else {}
        options |= {"stop": list(stop)} if stop else {}
        seen: Counter[str] = Counter()
        requests = []
        for messages in self._chats(prompts):
            request = {"model": self.model, "messages": messages, **options}
            if temperature > 0:
                text = json.dumps(messages)
                request["seed"] = int(hash_json([seed, seen[text]])[:7], 16) if seen[text] else seed
                seen[text] += 1
            requests.append(request)
        answers = self._client.fetch("/chat/completions", requests, _read_chat, "generating")
        return [
            Generation("", (), "error", str(answer))
            if isinstance(answer, RequestFailed)
            else Generation(answer["text"], (), answer["finish"])
            for answer in answers
        ]

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[ResponseScore]:
        """Log-probability of `responses[i]` right after `prompts[i]`, through `/completions` with echo and logprobs.

        The server sees plain text: no chat template is applied and no end token is scored, so prompts must be strings
        that are rendered as the model expects. A token that spans prompt and response counts as the response's. Costs
        one request a response and one a distinct prompt, each with one generated token.

        Returns:
            One score a response, in order; nan and 0 tokens where the server gave none.

        Raises:
            UsageError: the server does not score given text, or prompts are chats; and as `generate` does.
            DemurError: as `generate` does.
        """
        if len(prompts) != len(responses):
            raise UsageError(f"score needs one response a prompt, it got {len(prompts)} and {len(responses)}")
        self._chats(prompts)
        for i, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
            if not isinstance(prompt, str) or not prompt or self.system is not None:
                raise UsageError(
                    f"prompt {i} cannot be scored over HTTP: it must be text, not empty and rendered with the model's "
                    "chat template, and the engine must have no system message"
                )
            _check_text(response, f"response {i}")
        if not prompts:
            return []
        self._require_echo()
        requests = [self._echo_request(str(prompt)) for prompt in prompts]
        requests += [self._echo_request(f"{prompt}{answer}") for prompt, answer in zip(prompts, responses, strict=True)]
        answers = self._client.fetch("/completions", requests, _read_echo, "scoring")
        return [_response_score(*pair) for pair in zip(answers[: len(prompts)], answers[len(prompts) :], strict=True)]

    def _chats(self, prompts: Sequence[Prompt]) -> list[list[dict[str, str]]]:
        """The prompts as chats, with the engine's system message."""
        if isinstance(prompts, str):
            raise UsageError("prompts must be a list of prompts, it is one string: put it in a list")
        chats = []
        for i, prompt in enumerate(prompts):
            chat = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
            if not isinstance(chat, list) or not chat:
                raise UsageError(f"prompt {i} must be text or a list of messages, not {chat!r}")
            for message in chat:
                if not isinstance(message, Mapping) or not {"role", "content"} <= message.keys():
                    raise UsageError(f"prompt {i} has a message without role and content")
                _check_text(message["content"], f"prompt {i}")
            if self.system is not None and chat[0]["role"] not in ("system", "developer"):
                chat = [{"role": "system", "content": self.system}, *chat]
            chats.append(chat)
        return chats

    def _echo_request(self, text: str) -> Answer:
        # One token is generated because several servers refuse to generate none.
        options = {"max_tokens": 1, "temperature": 0.0, "echo": True, "logprobs": 1}
        return {"model": self.model, "prompt": text, **options}

    def _require_echo(self) -> None:
        """Find out once whether the server scores given text: some take the options and score what they generate."""
        if self._echoes:
            return
        answer: Answer | RequestFailed
        try:
            request = self._echo_request("one two three four")
            answer = self._client.fetch("/completions", [request], _read_echo, "scoring")[0]
        except WrongAddress as error:
            answer = RequestFailed(str(error))
        reason = str(answer) if isinstance(answer, RequestFailed) else "it scores only what it generates"
        if isinstance(answer, RequestFailed) or len(answer["logps"]) < 3 or None in answer["logps"][1:]:
            raise UsageError(
                f"{self.base_url} does not give the log-probabilities of a given text ({reason}): score needs "
                "/completions with echo and logprobs, as vLLM has it; use such a server or a local model"
            )
        self._echoes = True


def _check_text(text: Any, name: str) -> None:
    if not isinstance(text, str):
        raise UsageError(f"{name} must be text, it is {type(text).__name__}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{name} is not valid Unicode: it holds half a surrogate pair") from None


def _read_chat(body: Any) -> Answer:
    """Text and finish of a chat completion; a refusal given in its own field is text like any other."""
    choice = body["choices"][0]
    message, reason = choice["message"], choice.get("finish_reason")
    if reason == "content_filter":
        raise RequestFailed("the server's content filter withheld the answer")
    text = message.get("refusal") or "" if message.get("content") is None else message["content"]
    text = text.encode("utf-8", "replace").decode("utf-8")  # half a surrogate pair can be parsed but not written
    return {"text": text, "finish": "length" if reason in ("length", "max_tokens") else "stop"}


def _read_echo(body: Any) -> Answer:
    """Tokens and log-probabilities of the text that was sent, without the generated end."""
    scored = body["choices"][0].get("logprobs") or {}
    tokens, logps = scored.get("tokens"), scored.get("token_logprobs")
    if not tokens or not logps or len(tokens) != len(logps):
        raise RequestFailed("it sent no log-probabilities")
    given = len(tokens) - (body.get("usage") or {}).get("completion_tokens", 1)
    return {"tokens": tokens[:given], "logps": logps[:given]}


def _response_score(prompt: Answer | RequestFailed, both: Answer | RequestFailed) -> ResponseScore:
    """The response's share of the text: what follows the tokens that it has in common with the prompt alone."""
    if isinstance(prompt, RequestFailed) or isinstance(both, RequestFailed):
        return ResponseScore(float("nan"), 0)
    same = [a == b for a, b in zip(prompt["tokens"], both["tokens"], strict=False)]
    logps = both["logps"][[*same, False].index(False) :]
    return ResponseScore(float("nan"), 0) if None in logps else ResponseScore(float(sum(logps)), len(logps))
