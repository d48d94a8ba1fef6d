"""Beam search in which forbidden continuations are dropped and words near a forbidden phrase cost what they are near.

S(h·v) = S(h) + log p(v | x, h) - P_trie(h·v) - P_word(h·v)            (GUARD, arXiv 2505.13312)

Beams of all prompts are one batch over one key-value cache, reordered after each step. Prompts may have different
numbers of beams, so that a prompt whose beams were dropped costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from demur.data.batch import Encoded, collate
from demur.guards.restriction import Pieces, Restriction, State
from demur.models.head import capture_hidden
from demur.models.scored import checked_head, forward_inputs, unwrapped

if TYPE_CHECKING:
    from demur.models import LanguageModel

__all__ = ["Dropped", "Found", "beam_search"]

_NEVER = 1e30  # a finite infinity: 0 times it is 0
WordPenalties = Callable[[Sequence[tuple[Restriction, str]]], Any]


@dataclass(frozen=True)
class Dropped:
    """A continuation among a beam's likeliest that was not allowed.

    Attributes:
        before: the answer up to there.
        token: the text of the token that was dropped.
        reason: "phrase" (it would have completed one) or "word" (the word before it is too near to one).
        probability: that the model gave the token.
    """

    before: str
    token: str
    reason: Literal["phrase", "word"]
    probability: float


@dataclass(frozen=True)
class Found:
    """The best answer to one prompt.

    Attributes:
        tokens: the answer, its end token included.
        score: log-probability of the tokens, in nats, less the penalties.
        finish: "stop", "length", or "dead end": no continuation was allowed, and `tokens` is where it stood.
    """

    tokens: tuple[int, ...]
    score: float
    finish: Literal["stop", "length", "dead end"]


@dataclass(frozen=True, slots=True)
class _Beam:
    tokens: tuple[int, ...]
    score: float
    state: State
    source: int  # its parent's place in the batch


@dataclass
class _Row:
    """A prompt and its beams, best first."""

    restriction: Restriction
    room: int
    beams: list[_Beam]
    finished: list[Found] = field(default_factory=list)
    done: bool = False


@torch.no_grad()
def beam_search(
    lm: LanguageModel,
    prompts: Sequence[Sequence[int]],
    restrictions: Sequence[Restriction],
    *,
    width: int = 7,
    max_new_tokens: int = 200,
    word_penalties: WordPenalties | None = None,
    stop: Sequence[str] = (),
    dropped: list[Dropped] | None = None,
) -> list[Found]:
    """Answer prompts under restrictions.

    Without any restriction the best answer and its score are those of transformers' beam search with
    `length_penalty=0, early_stopping=True`; with width 1 besides, the greedy answer.

    Args:
        lm: the model.
        prompts: tokens of each, as `encode_prompts` gives them.
        restrictions: what each prompt's answer must not say.
        width: beams a prompt; of each beam twice as many continuations are looked at.
        max_new_tokens: longest answer.
        word_penalties: called with restrictions and words that lack a penalty; fills `Restriction.penalties`. Without
            it words cost nothing.
        stop: texts that end an answer.
        dropped: gets what was dropped, for one prompt at a time.

    Returns:
        One answer a prompt.
    """
    if not prompts:
        return []
    lm.model.eval()
    head, limit = checked_head(lm.model), lm.context or math.inf
    search = _Search(lm, restrictions[0].pieces, width, tuple(stop), word_penalties, dropped)
    rows = [
        _Row(restriction, int(min(max_new_tokens, limit - len(ids))), [_Beam((), 0.0, restriction.start, 0)])
        for ids, restriction in zip(prompts, restrictions, strict=True)
    ]
    batch = collate([Encoded(list(ids), 0) for ids in prompts], lm.pad_id, "left").to(lm.device)
    inputs: dict[str, Any] = dict(forward_inputs(lm.model, batch))
    mask, alive = batch.attention_mask, rows
    with capture_hidden(unwrapped(lm.model)) as captured:
        cache = lm.model(**inputs, use_cache=True).past_key_values
        while True:
            search.step(alive, head.logits(captured.pop()[:, -1]).log_softmax(1))
            alive = [row for row in alive if not row.done]
            if not alive:
                return [max(row.finished, key=lambda found: found.score) for row in rows]
            beams = [beam for row in alive for beam in row.beams]
            index = torch.tensor([beam.source for beam in beams], device=lm.device)
            cache.batch_select_indices(index)
            mask = torch.nn.functional.pad(mask[index], (0, 1), value=1)
            tokens = torch.tensor([[beam.tokens[-1]] for beam in beams], device=lm.device)
            step: dict[str, Any] = {"input_ids": tokens, "attention_mask": mask}
            if "position_ids" in inputs:
                step["position_ids"] = mask.sum(1, keepdim=True) - 1
            cache = lm.model(**step, past_key_values=cache, use_cache=True).past_key_values


class _Search:
    """What a step needs besides the beams and the model's answer."""

    def __init__(
        self,
        lm: LanguageModel,
        pieces: Pieces,
        width: int,
        stop: tuple[str, ...],
        word_penalties: WordPenalties | None,
        dropped: list[Dropped] | None,
    ) -> None:
        self._lm, self._width, self._stop, self._dropped = lm, width, stop, dropped
        self._word_penalties = word_penalties
        configured = getattr(lm.model.generation_config, "eos_token_id", None)
        ends = {*(configured if isinstance(configured, list) else [configured]), lm.tokenizer.eos_token_id}
        self._ends: set[int] = ends - {None}
        self._breaks = pieces.breaks.to(lm.device, torch.float32)
        self._breaks[list(self._ends)] = 1.0

    def step(self, rows: Sequence[_Row], logps: Tensor) -> None:
        """Extend every row's beams by one token.

        Args:
            rows: their beams, one after another, are the rows of `logps`.
            logps: (beams, vocab) log-probabilities; overwritten.
        """
        beams = [(row, beam) for row in rows for beam in row.beams]
        raw = None if self._dropped is None else logps.clone()
        costs = self._costs([(row.restriction, beam.state.word) for row, beam in beams])
        if any(costs):
            logps.addcmul_(logps.new_tensor(costs)[:, None], self._breaks[None], value=-1)
        banned = [row.restriction.forbidden(beam.state) for row, beam in beams]
        sizes = torch.tensor([len(tokens) for tokens in banned])
        if sizes.any():
            places = torch.arange(len(beams)).repeat_interleave(sizes), torch.cat(banned)
            logps[tuple(part.to(logps.device) for part in places)] = -_NEVER
        count = min(self._width * (1 + len(self._ends)), logps.shape[1])
        if raw is not None:
            self._note(beams, raw, logps, count)
        best, tokens = logps.topk(count, dim=1)
        scores = best.double().cpu().numpy() + np.array([[beam.score] for _, beam in beams])
        table, start = tokens.tolist(), 0
        for row in rows:
            end = start + len(row.beams)
            ranked = scores[start:end].ravel()
            order = (-ranked).argsort(kind="stable")
            order = order[ranked[order] > -_NEVER / 2].tolist()
            candidates = ((float(ranked[k]), start + k // count, table[start + k // count][k % count]) for k in order)
            self._choose(row, start, candidates)
            start = end

    def _choose(self, row: _Row, first: int, candidates: Iterable[tuple[float, int, int]]) -> None:
        """Take the best continuations as the row's new beams or among its finished answers.

        Args:
            row: its first beam is the batch's `first`.
            candidates: score, place of the beam in the batch, and token, best first.
        """
        running: list[_Beam] = []
        rank = 0
        for score, place, token in candidates:
            parent = row.beams[place - first]
            tokens = (*parent.tokens, token)
            if token in self._ends:
                if rank < self._width:
                    self._finish(row, tokens, score, "stop")
                rank += 1
                continue
            state = row.restriction.advance(parent.state, tokens)
            if state is None:
                continue
            rank += 1
            if self._stop and any(text in self._text(tokens) for text in self._stop):
                self._finish(row, tokens, score, "stop")
                continue
            running.append(_Beam(tokens, score, state, place))
            if len(running) == self._width:
                break
        if running and len(running[0].tokens) >= row.room:
            costs = self._costs([(row.restriction, beam.state.word) for beam in running])
            for beam, cost in zip(running, costs, strict=True):
                if cost < _NEVER:
                    self._finish(row, beam.tokens, beam.score - cost, "length")
            running = []
        if not running and not row.finished:
            row.finished.append(Found(row.beams[0].tokens, row.beams[0].score, "dead end"))
        # Scores only fall: what is finished cannot be overtaken by a beam that is behind it already.
        row.done = not running or (
            bool(row.finished)
            and (len(row.finished) >= self._width or max(f.score for f in row.finished) >= running[0].score)
        )
        row.beams = running

    def _finish(self, row: _Row, tokens: tuple[int, ...], score: float, how: Literal["stop", "length"]) -> None:
        if row.restriction.leak(self._text(tokens)) is None:
            row.finished.append(Found(tokens, score, how))

    def _text(self, tokens: Sequence[int]) -> str:
        return str(self._lm.tokenizer.decode(list(tokens), skip_special_tokens=True))

    def _costs(self, words: Sequence[tuple[Restriction, str]]) -> list[float]:
        """What it costs to end each word here; `_NEVER` where it must not be said."""
        if self._word_penalties is None:
            return [0.0] * len(words)
        missing = dict.fromkeys((r, word) for r, word in words if word not in r.penalties and word)
        if missing:
            self._word_penalties(list(missing))
        return [min(r.penalties[word], _NEVER) if word else 0.0 for r, word in words]

    def _note(self, beams: Sequence[tuple[_Row, _Beam]], raw: Tensor, allowed: Tensor, count: int) -> None:
        """Keep which of the beams' likeliest tokens are not allowed, and why."""
        assert self._dropped is not None
        for place, (row, beam) in enumerate(beams):
            banned = set(row.restriction.forbidden(beam.state).tolist())
            for token in raw[place].topk(count).indices.tolist():
                if allowed[place, token] <= -_NEVER / 2:
                    self._dropped.append(
                        Dropped(
                            self._text(beam.tokens),
                            str(self._lm.tokenizer.decode([token])),
                            "phrase" if token in banned else "word",
                            float(raw[place, token].exp()),
                        )
                    )
