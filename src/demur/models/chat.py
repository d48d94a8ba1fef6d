"""From prompts and responses to tokens, through the tokenizer's chat template or plain tags."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from demur.data.batch import Encoded
from demur.errors import UsageError
from demur.models.engine import Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from demur.models.language_model import LanguageModel

__all__ = ["encode", "encode_prompts", "render"]

_PLAIN = {"user": "Question: {}\n", "assistant": "Answer: {}\n\n", "system": "{}\n\n"}


def render(tokenizer: PreTrainedTokenizerBase, template: str, prompt: Prompt) -> str:
    """The text that a model is shown before it answers.

    Args:
        tokenizer: its chat template is used when `template` is "chat".
        template: "chat", or "plain" for "Question: …\\nAnswer: " tags around each turn.
        prompt: a user's text, or a conversation that ends with the user.

    Raises:
        UsageError: the template is unknown, or the conversation does not end with a user's or system's turn.
    """
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    if not messages or messages[-1]["role"] == "assistant":
        raise UsageError("a prompt must end with a user's turn")
    if template == "plain":
        return "".join(_PLAIN[m["role"]].format(m["content"]) for m in messages) + "Answer: "
    if template != "chat":
        raise UsageError(f"unknown template {template!r}: use 'chat' or 'plain'")
    text: Any = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return str(text)


def _render_with_response(tokenizer: PreTrainedTokenizerBase, template: str, prompt: Prompt, response: str) -> str:
    if template == "plain":
        return render(tokenizer, template, prompt) + response
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    messages = [*messages, {"role": "assistant", "content": response}]
    return str(tokenizer.apply_chat_template(messages, tokenize=False))


def _ids(lm: LanguageModel, texts: Sequence[str]) -> list[list[int]]:
    if not texts:
        return []
    encoded = lm.tokenizer(
        list(texts),
        add_special_tokens=lm.template == "plain",  # a chat template writes its own beginning-of-text token
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,  # a text that is too long is refused below, with its row
    )
    ids: list[list[int]] = encoded["input_ids"]
    return ids


def _fronts(lm: LanguageModel, prompts: Sequence[Prompt]) -> list[list[int]]:
    """Tokens of each rendered prompt; a prompt that occurs again is not tokenised again."""
    distinct = {_key(p): p for p in prompts}
    ids = _ids(lm, [render(lm.tokenizer, lm.template, p) for p in distinct.values()])
    known = dict(zip(distinct, ids, strict=True))
    return [known[_key(p)] for p in prompts]


def _key(prompt: Prompt) -> str:
    return prompt if isinstance(prompt, str) else json.dumps(prompt)


def encode_prompts(lm: LanguageModel, prompts: Sequence[Prompt]) -> list[list[int]]:
    """Tokens of each prompt as the model sees it before it answers.

    Raises:
        UsageError: a prompt leaves no room for an answer in the model's context; the message counts its tokens.
    """
    out = _fronts(lm, prompts)
    for row, ids in enumerate(out):
        _check_length(lm, len(ids) + 1, f"prompt {row}")
    return out


def encode(
    lm: LanguageModel, prompts: Sequence[Prompt], responses: Sequence[str], ids: Sequence[str] | None = None
) -> list[Encoded]:
    """Tokens of each prompt with its response, ended by the end-of-text token.

    The pair is tokenised as one text. Where the tokenizer merges characters across the border, the merged token
    counts as the first of the response.

    Args:
        lm: gives tokenizer, template and context length.
        prompts, responses: of equal length.
        ids: names used in messages and carried along; row numbers by default.

    Raises:
        UsageError: lengths differ, a sequence is longer than the model's context, or the tokenizer has no
            end-of-text token.
    """
    if len(prompts) != len(responses):
        raise UsageError(f"{len(prompts)} prompts but {len(responses)} responses")
    eos = lm.tokenizer.eos_token_id
    if eos is None:
        raise UsageError(f"the tokenizer of {lm.name} has no end-of-text token: set tokenizer.eos_token")
    names = [str(i) for i in range(len(prompts))] if ids is None else [str(i) for i in ids]
    fronts = _fronts(lm, prompts)
    wholes = _ids(
        lm, [_render_with_response(lm.tokenizer, lm.template, p, r) for p, r in zip(prompts, responses, strict=True)]
    )
    out = []
    for name, front, whole in zip(names, fronts, wholes, strict=True):
        border = len(front)
        if whole[:border] != front:
            border = next((i for i, (a, b) in enumerate(zip(front, whole, strict=False)) if a != b), len(whole))
        whole = _end_once(lm.tokenizer, whole, border, eos)
        _check_length(lm, len(whole), f"row {name!r}")
        out.append(Encoded(whole, border, name))
    return out


def _end_once(tokenizer: PreTrainedTokenizerBase, ids: list[int], border: int, eos: int) -> list[int]:
    """End the sequence with one end-of-text token, dropping white space that a template writes after it."""
    if eos in ids[border:]:
        last = len(ids) - 1 - ids[::-1].index(eos)
        if not str(tokenizer.decode(ids[last + 1 :])).strip():
            return ids[: last + 1]
    return [*ids, eos]


def _check_length(lm: LanguageModel, length: int, what: str) -> None:
    if lm.context is not None and length > lm.context:
        raise UsageError(
            f"{what} takes {length} tokens, more than the {lm.context} that {lm.name} can read: shorten or drop it"
        )
