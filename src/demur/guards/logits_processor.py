"""Forbidden phrases for transformers' own `model.generate`, greedy, sampling or beams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import LogitsProcessor

from demur.guards.restriction import Pieces, Restriction, State, token_trie

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["ForbiddenPhraseLogitsProcessor"]


class ForbiddenPhraseLogitsProcessor(LogitsProcessor):
    """Keeps generated text from containing any of some phrases, whatever their tokens, case and spacing.

    `model.generate(**inputs, logits_processor=[ForbiddenPhraseLogitsProcessor(tokenizer, phrases, prompt_length)])`.
    Unlike transformers' `bad_words_ids`, which forbids token sequences, it follows the text that the tokens spell.
    Words near a phrase are not penalised: that needs a `Guard`.

    Args:
        tokenizer: the model's.
        phrases: what must not be said.
        prompt_length: columns of `input_ids`, padding included; what is said there is not looked at.
        hard_threshold: match ratio over the phrases' tokens at which a token is forbidden, at most 1.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        phrases: Sequence[str],
        prompt_length: int,
        hard_threshold: float = 1.0,
    ) -> None:
        self._tokenizer, self._prompt_length, self._threshold = tokenizer, prompt_length, hard_threshold
        self._phrases, self._trie = tuple(phrases), token_trie(tokenizer, phrases)
        self._restriction: Restriction | None = None
        self._states: dict[tuple[int, ...], State | None] = {}

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """(n, vocab) scores with the forbidden tokens at -inf, for (n, length) tokens so far.

        A row that says a phrase already, as only a tokenizer with context-dependent decoding can bring about, has
        nothing left but its end.
        """
        if self._restriction is None:
            pieces = Pieces(self._tokenizer, scores.shape[1])
            self._restriction = Restriction(self._phrases, self._trie, pieces, self._tokenizer, self._threshold)
        scores = scores.clone()
        states: dict[tuple[int, ...], State | None] = {}
        for row, tokens in enumerate(input_ids[:, self._prompt_length :].tolist()):
            state = states[tuple(tokens)] = self._state(tuple(tokens))
            if state is None:
                end = self._tokenizer.eos_token_id
                scores[row, [token for token in range(scores.shape[1]) if token != end]] = -torch.inf
            else:
                scores[row, self._restriction.forbidden(state)] = -torch.inf
        self._states = states  # of this step; the next one begins where it ends, in whatever order
        return scores

    def _state(self, tokens: tuple[int, ...]) -> State | None:
        assert self._restriction is not None
        if tokens in self._states:
            return self._states[tokens]
        if not tokens:
            return self._restriction.start
        before = self._state(tokens[:-1])
        return None if before is None else self._restriction.advance(before, tokens)
