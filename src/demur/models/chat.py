"""From prompts and responses to tokens, through the tokenizer's chat template or plain tags."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from demur.data.batch import Encoded
from demur.data.rows import image_paths
from demur.errors import TooLongError, UsageError
from demur.models.engine import Prompt

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from demur.models.language_model import LanguageModel

__all__ = ["encode", "encode_prompts", "render"]

_PLAIN = {"user": "Question: {}\n", "assistant": "Answer: {}\n\n", "system": "{}\n\n"}


def render(tokenizer: PreTrainedTokenizerBase, template: str, prompt: Prompt) -> str:
    """The text that a model is shown before it answers.

    Args:
        tokenizer: its chat template is used when `template` is "chat".
        template: "chat", "plain" for "Question: …\\nAnswer: " tags around each turn, or "raw" for the last turn's bare
            text, which the model is to go on from.
        prompt: a user's text, or a conversation that ends with the user.

    Raises:
        UsageError: the template is unknown, or the conversation does not end with a user's or system's turn.
    """
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    if not messages or messages[-1]["role"] == "assistant":
        raise UsageError("a prompt must end with a user's turn")
    if template == "plain":
        return "".join(_PLAIN[m["role"]].format(m["content"]) for m in messages) + "Answer: "
    if template == "raw":
        return messages[-1]["content"]
    if template != "chat":
        raise UsageError(f"unknown template {template!r}: use 'chat' or 'plain'")
    text: Any = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return str(text)


def _render_with_response(tokenizer: PreTrainedTokenizerBase, template: str, prompt: Prompt, response: str) -> str:
    if template != "chat":
        return render(tokenizer, template, prompt) + response
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    parted = any(not isinstance(m["content"], str) for m in messages)
    messages = [*messages, {"role": "assistant", "content": _parts(response) if parted else response}]
    return str(tokenizer.apply_chat_template(messages, tokenize=False))


def _ids(lm: LanguageModel, texts: Sequence[str], pictures: Sequence[Sequence[str]]) -> list[list[int]]:
    if not texts:
        return []
    if lm.images is not None and lm.template == "chat":
        return [lm.images.tokens(text, paths) for text, paths in zip(texts, pictures, strict=True)]
    encoded = lm.tokenizer(
        list(texts),
        add_special_tokens=lm.template != "chat",  # a chat template writes its own beginning-of-text token
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,  # a text that is too long is refused below, with its row
    )
    ids: list[list[int]] = encoded["input_ids"]
    return ids


def _fronts(lm: LanguageModel, prompts: Sequence[Prompt], prefills: Sequence[str]) -> list[list[int]]:
    """Tokens of each rendered prompt with what its answer begins with; one that occurs again is not tokenised again."""
    keys = [(_key(p), prefill) for p, prefill in zip(prompts, prefills, strict=True)]
    distinct = dict(zip(keys, prompts, strict=True))
    texts = [render(lm.tokenizer, lm.template, _shown(lm, p)) + begun for (_, begun), p in distinct.items()]
    ids = _ids(lm, texts, [image_paths(p) for p in distinct.values()])
    known = dict(zip(distinct, ids, strict=True))
    return [known[key] for key in keys]


def _key(prompt: Prompt) -> str:
    return prompt if isinstance(prompt, str) else json.dumps(prompt)


def encode_prompts(lm: LanguageModel, prompts: Sequence[Prompt]) -> list[list[int]]:
    """Tokens of each prompt as the model sees it before it answers.

    Raises:
        UsageError: a prompt leaves no room for an answer in the model's context, the message counts its tokens; or it
            has a picture and the model cannot see.
    """
    check_images(lm, prompts, [str(i) for i in range(len(prompts))])
    out = _fronts(lm, prompts, [""] * len(prompts))
    _check_lengths(lm, [len(ids) + 1 for ids in out], [f"prompt {row}" for row in range(len(out))])
    return out


def encode(
    lm: LanguageModel,
    prompts: Sequence[Prompt],
    responses: Sequence[str],
    ids: Sequence[str] | None = None,
    prefills: Sequence[str] | None = None,
) -> list[Encoded]:
    """Tokens of each prompt with its response, ended by the end-of-text token.

    The pair is tokenised as one text. Where the tokenizer merges characters across the border, the merged token
    counts as the first of the response.

    Args:
        lm: gives tokenizer, template and context length.
        prompts, responses: of equal length.
        ids: names used in messages and carried along; row numbers by default.
        prefills: text that each answer begins with before its response; it counts as part of the prompt.

    Raises:
        UsageError: lengths differ, a sequence is longer than the model's context, the tokenizer has no end-of-text
            token, or a prompt has a picture and the model cannot see.
    """
    if len(prompts) != len(responses):
        raise UsageError(f"{len(prompts)} prompts but {len(responses)} responses")
    eos = lm.tokenizer.eos_token_id
    if eos is None:
        raise UsageError(f"the tokenizer of {lm.name} has no end-of-text token: set tokenizer.eos_token")
    names = [str(i) for i in range(len(prompts))] if ids is None else [str(i) for i in ids]
    check_images(lm, prompts, names)
    begun = [""] * len(prompts) if prefills is None else prefills
    fronts = _fronts(lm, prompts, begun)
    shown = [_shown(lm, p) for p in prompts]
    answers = [start + rest for start, rest in zip(begun, responses, strict=True)]
    texts = [_render_with_response(lm.tokenizer, lm.template, p, r) for p, r in zip(shown, answers, strict=True)]
    if lm.images is not None:  # such templates write a space after every turn, which is no part of the answer
        texts = [text if r != r.rstrip() else text.rstrip() for text, r in zip(texts, responses, strict=True)]
    wholes = _ids(lm, texts, [image_paths(p) for p in prompts])
    out = []
    for name, front, whole, prompt in zip(names, fronts, wholes, prompts, strict=True):
        border = len(front)
        if whole[:border] != front:
            border = next((i for i, (a, b) in enumerate(zip(front, whole, strict=False)) if a != b), len(whole))
        whole = _end_once(lm.tokenizer, whole, border, eos)
        out.append(Encoded(whole, border, name, *picture_source(lm, prompt)))
    _check_lengths(lm, [len(e.input_ids) for e in out], [f"row {name!r}" for name in names])
    return out


def picture_source(lm: LanguageModel, prompt: Prompt) -> tuple[tuple[str, ...], Callable[[], Tensor] | None]:
    """The files of a prompt's pictures and what reads them, as `Encoded` holds them."""
    paths = tuple(image_paths(prompt))
    if not paths or lm.images is None:
        return (), None
    return paths, functools.partial(lm.images.pixels, paths)


def check_images(lm: LanguageModel, prompts: Sequence[Prompt], names: Sequence[str]) -> None:
    """Refuse pictures for a model that cannot see them.

    Raises:
        UsageError: a prompt has a picture and the model no image tower, or the template has no place for one.
    """
    for name, prompt in zip(names, prompts, strict=True):
        if image_paths(prompt):
            if lm.images is None:
                raise UsageError(
                    f"row {name!r} has a picture and {lm.name} has no image tower: pass a vision-language model, for "
                    "instance lab:scenes-digits, or rows without pictures"
                )
            if lm.template != "chat":
                raise UsageError(f"row {name!r} has a picture, which only a chat template shows: use --template chat")


def _shown(lm: LanguageModel, prompt: Prompt) -> Prompt:
    """The prompt as the model's template takes it: templates of models that see read every content as parts."""
    if lm.images is None or lm.template != "chat":
        return prompt
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    return [{**m, "content": _parts(m["content"])} for m in messages]


def _parts(content: Any) -> Any:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _end_once(tokenizer: PreTrainedTokenizerBase, ids: list[int], border: int, eos: int) -> list[int]:
    """End the sequence with one end-of-text token, dropping white space that a template writes after it."""
    if eos in ids[border:]:
        last = len(ids) - 1 - ids[::-1].index(eos)
        if not str(tokenizer.decode(ids[last + 1 :])).strip():
            return ids[: last + 1]
    return [*ids, eos]


def _check_lengths(lm: LanguageModel, lengths: Sequence[int], names: Sequence[str]) -> None:
    context = lm.context
    for length, name in zip(lengths, names, strict=True):
        if context is not None and length > context:
            raise TooLongError(
                f"{name} takes {length} tokens, more than the {context} that {lm.name} can read: shorten or drop it"
            )
