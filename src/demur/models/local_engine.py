"""Generation and scoring with a model on this machine."""

from __future__ import annotations

import functools
import math
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from demur.data.batch import Encoded, collate
from demur.errors import UsageError
from demur.models.chat import encode, encode_prompts, picture_source
from demur.models.engine import Generation, Prompt, ResponseScore
from demur.models.head import Head, capture_hidden
from demur.models.language_model import LanguageModel
from demur.models.scored import checked_head, forward_inputs, unwrapped
from demur.models.token_statistics import token_stats

__all__ = ["LocalEngine"]


@dataclass
class _Row:
    """One answer as it grows."""

    index: int
    tokens: list[int]
    known: list[int]
    uniforms: Tensor | None
    pixels: Callable[[], Tensor] | None = None
    new: list[int] = field(default_factory=list)
    finish: str = ""


class LocalEngine:
    """Answers prompts with a loaded model, in length-sorted batches that shrink as answers end.

    Args:
        lm: the model; put in eval mode when used.
        batch_size: prompts in one batch.
    """

    def __init__(self, lm: LanguageModel, batch_size: int = 32) -> None:
        if batch_size < 1:
            raise UsageError(f"batch_size must be at least 1, not {batch_size}")
        self.lm, self.batch_size = lm, batch_size

    @torch.no_grad()
    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        max_new_tokens: int = 200,
        temperature: float = 0.0,
        top_p: float = 1.0,
        stop: Sequence[str] = (),
        seed: int = 0,
        prefill: Sequence[Sequence[int]] | None = None,
        progress: Callable[[int], Any] | None = None,
    ) -> list[Generation]:
        """Answer each prompt.

        Args:
            prompts: texts or conversations.
            max_new_tokens: an answer's length at most, `prefill` included.
            temperature: 0 takes the likeliest token; else the distribution is sharpened or flattened by it.
            top_p: sample from the smallest set of tokens that holds this share of the probability.
            stop: texts that end an answer; cut off, with all that follows.
            seed: each prompt, and each repetition of one, draws from its own stream, so that neither batch size nor
                order changes an answer.
            prefill: tokens that each answer begins with; they are read, not generated.
            progress: called with the number of prompts done since the last call.

        Returns:
            One `Generation` a prompt, in order.

        Raises:
            UsageError: an option is out of range, or a prompt leaves no room in the model's context.
        """
        if max_new_tokens < 1 or temperature < 0 or not 0 < top_p <= 1:
            raise UsageError("generate needs max_new_tokens >= 1, temperature >= 0 and 0 < top_p <= 1")
        rows = []
        seen: Counter[tuple[int, ...]] = Counter()
        for index, tokens in enumerate(encode_prompts(self.lm, prompts)):
            known = list(prefill[index])[:max_new_tokens] if prefill is not None else []
            paths, pixels = picture_source(self.lm, prompts[index])
            stream = [*tokens, *(zlib.crc32(path.encode()) for path in paths)]
            uniforms = None
            if temperature > 0:
                seen[tuple(stream)] += 1
                generator = torch.Generator().manual_seed(_stream(seed, stream, seen[tuple(stream)]))
                uniforms = torch.rand(max_new_tokens, generator=generator)
            rows.append(_Row(index, tokens, known, uniforms, pixels))
        self.lm.model.eval()
        done: list[_Row] = []
        waiting = []
        for row in rows:
            row.new = list(row.known)
            if self._ended(row, stop, max_new_tokens):
                done.append(row)
            else:
                waiting.append(row)
        if progress is not None and done:
            progress(len(done))
        waiting.sort(key=lambda r: len(r.tokens) + len(r.known))
        for start in range(0, len(waiting), self.batch_size):
            batch = waiting[start : start + self.batch_size]
            self._decode(batch, max_new_tokens, temperature, top_p, stop)
            done += batch
            if progress is not None:
                progress(len(batch))
        done.sort(key=lambda r: r.index)
        return [self._generation(row, stop) for row in done]

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[ResponseScore]:
        """How likely each response is, its end-of-text token included.

        Raises:
            UsageError: lengths differ, or a pair is longer than the model's context.
        """
        stats = token_stats(self.lm, encode(self.lm, prompts, responses), moments=False, batch_size=self.batch_size)
        return [ResponseScore(float(s.logps.sum()), len(s.logps)) for s in stats]

    def _decode(
        self, rows: list[_Row], max_new_tokens: int, temperature: float, top_p: float, stop: Sequence[str]
    ) -> None:
        lm, head = self.lm, checked_head(self.lm.model)
        context = lm.context or math.inf
        known = [Encoded([*r.tokens, *r.known], 0, pixels=r.pixels) for r in rows]
        batch = collate(known, lm.pad_id, "left").to(lm.device)
        inputs: dict[str, Any] = dict(forward_inputs(lm.model, batch))
        mask = batch.attention_mask
        alive = list(rows)
        with capture_hidden(unwrapped(lm.model)) as captured:
            cache = lm.model(**inputs, use_cache=True).past_key_values
            while True:
                tokens = _next_tokens(head, captured.pop()[:, -1], alive, temperature, top_p)
                for row, token in zip(alive, tokens.tolist(), strict=True):
                    row.new.append(token)
                    if not self._ended(row, stop, max_new_tokens) and len(row.tokens) + len(row.new) >= context:
                        row.finish = "length"
                keep = [i for i, row in enumerate(alive) if not row.finish]
                if not keep:
                    return
                if len(keep) < len(alive):
                    index = torch.tensor(keep, device=lm.device)
                    cache.batch_select_indices(index)
                    mask, tokens = mask[index], tokens[index]
                    alive = [alive[i] for i in keep]
                mask = torch.nn.functional.pad(mask, (0, 1), value=1)
                step: dict[str, Any] = {"input_ids": tokens[:, None], "attention_mask": mask}
                if "position_ids" in inputs:
                    step["position_ids"] = mask.sum(1, keepdim=True) - 1
                cache = lm.model(**step, past_key_values=cache, use_cache=True).past_key_values

    def _ended(self, row: _Row, stop: Sequence[str], max_new_tokens: int) -> bool:
        if (row.new and row.new[-1] in self._end_tokens) or (stop and any(s in self._text(row.new) for s in stop)):
            row.finish = "stop"
        elif len(row.new) >= max_new_tokens:
            row.finish = "length"
        return bool(row.finish)

    @functools.cached_property
    def _end_tokens(self) -> set[int]:
        ends = {self.lm.tokenizer.eos_token_id}
        configured = getattr(self.lm.model.generation_config, "eos_token_id", None)
        ends |= set(configured) if isinstance(configured, list) else {configured}
        return ends - {None}

    def _text(self, tokens: Sequence[int]) -> str:
        return str(self.lm.tokenizer.decode(list(tokens), skip_special_tokens=True))

    def _generation(self, row: _Row, stop: Sequence[str]) -> Generation:
        text = self._text(row.new)
        cuts = [text.index(s) for s in stop if s in text]
        text = text[: min(cuts)] if cuts else text
        return Generation(text.strip(), tuple(row.new), "stop" if row.finish == "stop" else "length")


def _stream(seed: int, tokens: Sequence[int], repetition: int) -> int:
    return int(np.random.SeedSequence([seed, repetition, *tokens]).generate_state(1, np.uint64)[0] >> 1)


def _next_tokens(head: Head, hidden: Tensor, rows: Sequence[_Row], temperature: float, top_p: float) -> Tensor:
    logits = head.logits(hidden)
    if temperature == 0:
        return logits.argmax(1)
    ordered, ids = (logits / temperature).softmax(1).sort(1, descending=True)
    before = ordered.cumsum(1) - ordered
    ordered = ordered.masked_fill(before >= top_p, 0.0)
    total = ordered.cumsum(1)
    draws = torch.stack([r.uniforms[len(r.new)] for r in rows if r.uniforms is not None]).to(total.device)
    place = torch.searchsorted(total, draws[:, None] * total[:, -1:], right=True).clamp(max=total.shape[1] - 1)
    return ids.gather(1, place).squeeze(1)
