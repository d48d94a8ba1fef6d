"""Tokenising, scoring and answering exactly as open-unlearning does, known faults included.

Read at locuslab/open-unlearning, commit d3d7cf9 (December 2025; arXiv 2506.12618). What differs from demur's own way:
the border between prompt and answer is the prompt's own token count even where the tokenizer merges across it; the
attention mask hides every token that equals the pad token, end-of-turn tokens inside the text too; scoring counts
hidden tokens as positions, generation does not; the truth for ROUGE is decoded from the tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from demur.errors import UsageError

if TYPE_CHECKING:
    import torch

    from demur.data import Encoded
    from demur.models import LanguageModel, Prompt, TokenStats

__all__ = ["CompatSettings", "compat_continue", "compat_encode", "compat_generate", "compat_token_stats"]

_MAX_LENGTH = 512  # of plain text; what a chat template renders is never cut


class CompatSettings(Protocol):
    """What open-unlearning's model configuration puts into the chat template, and prompts in one batch."""

    @property
    def system_prompt(self) -> str | None: ...

    @property
    def date_string(self) -> str | None: ...

    @property
    def batch_size(self) -> int: ...


def compat_encode(
    lm: LanguageModel, prompts: Sequence[str], responses: Sequence[str], ids: Sequence[str], settings: CompatSettings
) -> list[Encoded]:
    """Tokens of questions with their answers, ended by the end-of-text token if they do not end so already.

    An answer can come out without any label token; its scores are then undefined.

    Raises:
        UsageError: the tokenizer has no end-of-text token.
    """
    from demur.data import Encoded

    if lm.tokenizer.eos_token_id is None:
        raise UsageError(f"the tokenizer of {lm.name} has no end-of-text token: set tokenizer.eos_token")
    out = []
    for prompt, response, name in zip(prompts, responses, ids, strict=True):
        front, whole = _front_and_whole(lm, prompt, response, settings)
        if whole[-1] != lm.tokenizer.eos_token_id:
            whole = [*whole, int(lm.tokenizer.eos_token_id)]
        out.append(Encoded(whole, min(len(front), len(whole)), name))
    return out


def _front_and_whole(
    lm: LanguageModel, prompt: Prompt, response: str, settings: CompatSettings
) -> tuple[list[int], list[int]]:
    """Tokens of a prompt, which may be a conversation of in-context examples, and of the whole conversation."""
    tokenizer = lm.tokenizer
    turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    if lm.template == "plain":
        tags = {"user": "Question: {}\n", "assistant": "Answer: {}\n\n"}
        front = "".join(tags[turn["role"]].format(turn["content"]) for turn in turns) + "Answer: "
        options: dict[str, Any] = {"add_special_tokens": True, "max_length": _MAX_LENGTH, "truncation": True}
        return tokenizer(front, **options)["input_ids"], tokenizer(front + response, **options)["input_ids"]
    chat = [{"role": "system", "content": settings.system_prompt}] if settings.system_prompt else []
    chat += [*turns, {"role": "assistant", "content": response}]
    date: dict[str, Any] = {"date_string": settings.date_string} if settings.date_string else {}
    front_ids: Any = tokenizer.apply_chat_template(
        chat[:-1], tokenize=True, add_generation_prompt=True, return_dict=False, **date
    )
    whole_ids: Any = tokenizer.apply_chat_template(
        chat, tokenize=True, add_generation_prompt=False, return_dict=False, **date
    )
    return list(front_ids), list(whole_ids)


def compat_token_stats(
    lm: LanguageModel, encoded: Sequence[Encoded], batch_size: int = 32, progress: Callable[[int], Any] | None = None
) -> list[TokenStats]:
    """Score answers token by token from full logits, with pad-equal tokens hidden."""
    import torch

    from demur.data.batch import collate

    lm.model.eval()
    out: list[TokenStats] = []
    for start in range(0, len(encoded), batch_size):
        rows = encoded[start : start + batch_size]
        ids = collate(rows, lm.pad_id).input_ids.to(lm.device)
        with torch.no_grad():
            logits = lm.model(input_ids=ids, attention_mask=(ids != lm.pad_id).long(), use_cache=False).logits
        out += [_stats(item, logits[i]) for i, item in enumerate(rows)]
        if progress is not None:
            progress(len(rows))
    return out


def _stats(item: Encoded, logits: torch.Tensor) -> TokenStats:
    import torch

    from demur.models import TokenStats

    first, end = item.first_label, len(item.input_ids)
    labels = torch.tensor(item.input_ids[first:], dtype=torch.long, device=logits.device)
    log_p = logits[first - 1 : end - 1].float().log_softmax(dim=-1)
    mu = (log_p.exp() * log_p).sum(-1)
    sigma2 = (log_p.exp() * log_p.square()).sum(-1) - mu.square()
    values = (log_p.gather(1, labels[:, None])[:, 0], mu, sigma2)
    logps, mean, variance = (v.double().cpu().numpy() for v in values)
    hits = (log_p.argmax(-1) == labels).cpu().numpy() if len(labels) else np.empty(0, dtype=bool)
    return TokenStats(item.id, labels.cpu().numpy(), logps, hits, mean, variance)


def compat_generate(
    lm: LanguageModel,
    prompts: Sequence[Prompt],
    responses: Sequence[str],
    settings: CompatSettings,
    progress: Callable[[int], Any] | None = None,
    *,
    max_new_tokens: int,
    stop: Sequence[str] = (),
) -> list[tuple[str, str]]:
    """Greedy answers and the truths that they are compared with.

    Args:
        lm: the model.
        prompts: questions, or conversations that show how others are answered and end with the question.
        responses: their true answers.
        settings: chat template options and batch size.
        progress: called with the number of questions done since the last call.
        max_new_tokens: longest answer.
        stop: texts that end an answer.

    Returns:
        (answer, truth) of each question; the truth is what the tokens of the whole conversation decode to, with the
        decoded prompt taken out.
    """
    pairs = [_front_and_whole(lm, p, r, settings) for p, r in zip(prompts, responses, strict=True)]
    return compat_continue(lm, pairs, settings.batch_size, progress, max_new_tokens=max_new_tokens, stop=stop)


def compat_continue(
    lm: LanguageModel,
    pairs: Sequence[tuple[list[int], list[int]]],
    batch_size: int,
    progress: Callable[[int], Any] | None = None,
    *,
    max_new_tokens: int,
    stop: Sequence[str] = (),
) -> list[tuple[str, str]]:
    """What a model says after each prompt, and the truth that it is compared with.

    Args:
        lm: the model.
        pairs: tokens of each prompt, and those that the truth is decoded from.
        batch_size: prompts in one batch.
        progress, max_new_tokens, stop: as in `compat_generate`.
    """
    import torch

    lm.model.eval()
    ends = [w for w in (str(lm.tokenizer.decode([lm.tokenizer.eos_token_id])), *stop) if w]
    out: list[tuple[str, str]] = []
    for start in range(0, len(pairs), batch_size):
        rows = pairs[start : start + batch_size]
        width = max(len(front) for front, _ in rows)
        ids = torch.tensor([[lm.pad_id] * (width - len(front)) + front for front, _ in rows], device=lm.device)
        with torch.no_grad():
            made: Any = lm.model.generate(  # type: ignore[operator]
                ids,
                attention_mask=(ids != lm.pad_id).long(),
                do_sample=False,
                top_p=None,
                temperature=None,
                max_new_tokens=max_new_tokens,
                pad_token_id=lm.tokenizer.eos_token_id,
            )
        for (front, whole), new in zip(rows, made[:, width:].tolist(), strict=True):
            answer = _text(lm, new)
            for end in ends:
                answer = answer.split(end)[0]
            out.append((answer.strip(), _text(lm, whole).replace(_text(lm, front), "").strip()))
        if progress is not None:
            progress(len(rows))
    return out


def _text(lm: LanguageModel, tokens: Sequence[int]) -> str:
    text = str(lm.tokenizer.decode(list(tokens), skip_special_tokens=True))
    # transformers 4 joined punctuation to the word before it; version 5 no longer does so for most tokenizers.
    return str(lm.tokenizer.clean_up_tokenization(text))
