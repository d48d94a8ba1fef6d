"""Rows that two sets share."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from demur.data.rows import Prompt, is_text, question_answer
from demur.errors import UsageError

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["find_overlap", "require_disjoint"]

_SHOWN = 5


def find_overlap(forget: Dataset, retain: Dataset) -> list[tuple[str, str]]:
    """Rows of one set that say the same as rows of another: same prompt and response, or same text, but for case and
    white space.

    Args:
        forget, retain: rows with an `id`, under either naming (question/answer or prompt/response), or raw texts.

    Returns:
        Every pair (id in `forget`, id in `retain`), in the order of the rows.

    Raises:
        UsageError: the rows have no prompts or responses.
    """
    retained = defaultdict(list)
    for key, row_id in zip(_keys(retain), retain["id"][:], strict=True):
        retained[key].append(row_id)
    return [
        (row_id, other)
        for key, row_id in zip(_keys(forget), forget["id"][:], strict=True)
        for other in retained.get(key, ())
    ]


def require_disjoint(forget: Dataset, retain: Dataset, allow_overlap: bool = False) -> None:
    """Refuse to forget what is also to be retained.

    Args:
        forget, retain: rows with an `id`.
        allow_overlap: accept shared rows.

    Raises:
        UsageError: a row is in both sets, and `allow_overlap` is false; the message names the first five.
    """
    if allow_overlap:
        return
    first: dict[str, str] = {}
    for row_id, other in find_overlap(forget, retain):
        first.setdefault(row_id, other)
    if first:
        shown = ", ".join(f"{row_id} (retain {other})" for row_id, other in list(first.items())[:_SHOWN])
        raise UsageError(
            f"{len(first)} of {len(forget)} forget rows are also retain rows: id {shown}"
            f"{', …' if len(first) > _SHOWN else ''}; take them out of one of the sets, or pass --allow-overlap"
        )


def _keys(dataset: Dataset) -> list[tuple[str, str]]:
    if is_text(dataset):
        return [("", _normal(text)) for text in dataset["text"][:]]
    prompts, answers = question_answer(dataset)
    return [(_normal(prompt), _normal(answer)) for prompt, answer in zip(prompts, answers, strict=True)]


def _normal(text: Prompt) -> str:
    if not isinstance(text, str):
        alone = len(text) == 1 and text[0]["role"] == "user" and isinstance(text[0]["content"], str)
        turns = [f"{message['role']}: {message['content']}" for message in text]
        text = text[0]["content"] if alone else "\n".join(turns)
    return " ".join(text.split()).casefold()
