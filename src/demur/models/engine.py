"""What every engine answers, whether the model behind it is local, behind an HTTP endpoint, or wrapped in a guard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from demur.data.rows import Prompt

__all__ = ["Engine", "Generation", "Prompt", "ResponseScore"]


@dataclass(frozen=True)
class Generation:
    """What a model answered to one prompt.

    Attributes:
        text: the answer, without special tokens and without the stop string that ended it.
        token_ids: the answer's tokens, without the prompt's; empty where the engine cannot see them.
        finish: why it ended: "stop" (end token or stop string), "length" (out of new tokens), "error" (no answer).
        error: the reason where `finish` is "error", else None.
    """

    text: str
    token_ids: tuple[int, ...]
    finish: Literal["stop", "length", "error"]
    error: str | None = None


@dataclass(frozen=True)
class ResponseScore:
    """How likely a model finds a given response.

    Attributes:
        logp: sum of the response tokens' log-probabilities, in nats; nan where it could not be scored.
        tokens: number of response tokens that were scored.
    """

    logp: float
    tokens: int


@runtime_checkable
class Engine(Protocol):
    """Generates and scores; answers come back in the order of the prompts."""

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
        """Answer each prompt.

        Args:
            prompts: the prompts; one answer each, in the same order.
            max_new_tokens: most tokens an answer may have.
            temperature: 0 takes the most likely token at each step; above 0 samples.
            top_p: samples from the smallest set of tokens whose probabilities sum to this.
            stop: strings that end an answer; they are not part of it.
            seed: makes sampling repeatable.
        """
        ...

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[ResponseScore]:
        """The log-probability of `responses[i]` after `prompts[i]`, for each i."""
        ...
