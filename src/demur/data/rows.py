"""What a row is: the columns of `Example` and `TofuRow`, what each may hold, and a hash over rows."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from demur.errors import RowError, UsageError
from demur.files import hash_file
from demur.registry import nearest

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = [
    "ChoiceRow",
    "Example",
    "Message",
    "Prompt",
    "Row",
    "TofuRow",
    "check_row",
    "image_paths",
    "is_text",
    "question_answer",
    "row_texts",
    "rows_hash",
    "schema_for",
]

Prompt = str | list[dict[str, Any]]
"""A prompt as plain data: text, or chat messages `{"role": …, "content": …}`.

A message's content is text, or a list of parts `{"type": "text", "text": …}` and `{"type": "image", "path": …}`.
"""

CHOICES = 4
"""Options of a multiple-choice question."""

_BATCH = 1000


def _describe(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return f"the truth value {str(value).lower()}"
    if isinstance(value, int | float):
        return f"the number {value}"
    names: dict[type, str] = {str: "text", list: "a list", dict: "an object"}
    return names.get(type(value), f"a {type(value).__name__}")


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be text, not {_describe(value)}")
    return value


def _text(value: Any) -> str:
    if not _string(value).strip():
        raise ValueError("is empty")
    return value


def _identifier(value: Any) -> str:
    return _text(str(value) if isinstance(value, int) and not isinstance(value, bool) else value)


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"must be a list of texts, not {'an empty list' if value == [] else _describe(value)}")
    for position, item in enumerate(value, start=1):
        try:
            _text(item)
        except ValueError as error:
            raise ValueError(f"item {position} {error}") from None
    return value


def _prompt(value: Any) -> Any:
    if not isinstance(value, list):
        if not isinstance(value, str):
            raise ValueError(f"must be text or a list of chat messages, not {_describe(value)}")
        return _text(value)
    if not value:
        raise ValueError("is an empty list of chat messages")
    for position, message in enumerate(value, start=1):
        for key in ("role", "content"):
            if key == "content" and isinstance(message, dict) and isinstance(message.get(key), list):
                for part in message[key]:
                    _part(part, position)
            elif not isinstance(message, dict) or not isinstance(message.get(key), str):
                raise ValueError(f"message {position} must be an object whose {key!r} is text")
    return value


def _part(part: Any, position: int) -> None:
    """Refuse a part of a message's content that is neither text nor a picture that exists."""
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "image":
        _image(part.get("path"))
    elif kind != "text" or not isinstance(part.get("text"), str):
        raise ValueError(
            f'the parts of message {position} must be {{"type": "text", "text": …}} or {{"type": "image", "path": …}}'
        )


def _image(value: Any) -> str:
    if not Path(_text(value)).is_file():
        raise ValueError(f"there is no image file {value}")
    return value


def _label(value: Any) -> Any:
    if value not in ("comply", "refuse", "abstain"):
        raise ValueError(f"must be comply, refuse or abstain, not {value!r}")
    return value


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"must be an object, not {_describe(value)}")
    return value


def _choices(value: Any) -> list[str]:
    if len(_texts(value)) != CHOICES:
        raise ValueError(f"must have {CHOICES} choices, not {len(value)}")
    return list(value)


def _choice(value: Any) -> int:
    letters = {letter: place for place, letter in enumerate("ABCD")}
    number = letters.get(value.strip().upper(), value) if isinstance(value, str) else value
    number = int(number) if isinstance(number, str) and number.strip().isdecimal() else number
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < CHOICES:
        raise ValueError(f"must be the number of a choice, 0 to {CHOICES - 1}, not {value!r}")
    return number


# These run before pydantic's own checks, whose wording names Python types that a reader of a data file may not know.
_Text = Annotated[str, BeforeValidator(_text)]
_Id = Annotated[str, BeforeValidator(_identifier)]
_Name = Annotated[str, BeforeValidator(_string)]
_Object = Annotated[dict[str, Any], BeforeValidator(_object)]
_Image = Annotated[str, BeforeValidator(_image)]
_Label = Annotated[Literal["comply", "refuse", "abstain"], BeforeValidator(_label)]


class Message(BaseModel):
    """One turn of a chat.

    Attributes:
        role: who speaks: "system", "user", "assistant", or what the model's template knows.
        content: what is said, as text or as parts (see `Prompt`).
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    role: str
    content: str | list[dict[str, Any]]


class Row(BaseModel):
    """The columns that every kind of row may have; columns beyond the documented ones are kept.

    Attributes:
        id: names the row within its set; the row's number, counted from 0, where a source has none.
        label: what a good answer does.
        category: topic or kind of request.
        split: part of the set the row belongs to.
        image_path: file of a picture that the prompt is about; shown before its text.
        meta: anything else that should travel with the row.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    id: _Id | None = None
    label: _Label | None = None
    category: _Name | None = None
    split: _Name | None = None
    image_path: _Image | None = None
    meta: _Object | None = None


class Example(Row):
    """A prompt and what the model should answer.

    Attributes:
        prompt: the request, as text or as chat messages.
        response: the wanted answer; None for rows that only ask.
    """

    prompt: Annotated[str | list[Message], BeforeValidator(_prompt)]
    response: _Text | None = None


class TofuRow(Row):
    """A question and its answer in the format of TOFU (Maini et al. 2024, arXiv 2401.06121).

    Attributes:
        question: what is asked.
        answer: the true answer.
        paraphrased_answer: the true answer in other words.
        perturbed_answer: wrong answers in the form of the paraphrased one.
        paraphrased_question: the question in other words.
    """

    question: _Text
    answer: _Text
    paraphrased_answer: _Text | None = None
    perturbed_answer: Annotated[list[str], BeforeValidator(_texts)] | None = None
    paraphrased_question: _Text | None = None


class ChoiceRow(Row):
    """A question with four options, as WMDP and MMLU have them.

    Attributes:
        question: what is asked.
        choices: the options.
        answer: the number of the right one, from 0, or its letter.
    """

    question: _Text
    choices: Annotated[list[str], BeforeValidator(_choices)]
    answer: Annotated[int, BeforeValidator(_choice)]


def schema_for(columns: Collection[str], required: Collection[str] = ()) -> type[Row] | None:
    """The kind of row that a set with these columns holds, or None where it is none of the documented ones.

    A set with `choices`, whose `answer` may be a number, is checked only where choices are required: not every such
    set has four.
    """
    if "choices" in required:
        return ChoiceRow
    if {"question", "answer"} <= set(columns) and "choices" not in columns:
        return TofuRow
    return Example if "prompt" in columns else None


def check_row(
    row: Mapping[str, Any],
    schema: type[Row] | None,
    *,
    required: Collection[str] = (),
    file: str,
    line: int | None = None,
    names: Mapping[str, str] | None = None,
) -> None:
    """Check one row.

    Args:
        row: column → value.
        schema: kind of row it must be; None checks only that the required columns hold something.
        required: columns that must not be null.
        file: what error messages call the source.
        line: the row's line in it, counted from 1.
        names: column → what the source calls it, where these differ.

    Raises:
        RowError: a column is missing, null, empty, or of the wrong type.
    """
    names = names or {}
    mandatory = [n for n, field in schema.model_fields.items() if field.is_required()] if schema else []
    for column in dict.fromkeys([*required, *mandatory]):
        value = row.get(column)
        if value is None:
            held = [names.get(key, key) for key, held in row.items() if held is not None]
            raise RowError(file, line, names.get(column, column), f"is missing or null; {nearest(column, held)}")
    if schema is None:
        return
    try:
        schema.model_validate(row)
    except ValidationError as failure:
        first = failure.errors(include_url=False)[0]
        column = str(first["loc"][0])
        problem = first["msg"].removeprefix("Value error, ")
        raise RowError(file, line, names.get(column, column), problem) from None


def question_answer(dataset: Dataset) -> tuple[list[Prompt], list[str]]:
    """The prompts and the responses of a set, whether its columns are question/answer or prompt/response.

    Args:
        dataset: rows with one of `question` and `prompt`, and one of `answer` and `response`.

    Returns:
        Two lists with one entry a row; the prompt of a row with an `image_path` is chat messages with the picture.

    Raises:
        UsageError: a column is missing, or both names of one are there and it is unclear which is meant.
        RowError: a row has no response.
    """
    asked, answered = _one_of(dataset, "question", "prompt"), _one_of(dataset, "answer", "response")
    answers = dataset[answered][:]
    if None in answers:
        raise RowError("the rows", answers.index(None) + 1, answered, "is missing or null")
    prompts = dataset[asked][:]
    if "image_path" in dataset.column_names:
        prompts = [_with_image(p, path) for p, path in zip(prompts, dataset["image_path"][:], strict=True)]
    return prompts, answers


def _with_image(prompt: Prompt, path: str | None) -> Prompt:
    """The prompt with a picture before the text of its first message from the user."""
    if path is None:
        return prompt
    messages: list[dict[str, Any]] = [{"role": "user", "content": prompt}]
    if not isinstance(prompt, str):
        messages = [dict(m) for m in prompt]
    asked = next((m for m in messages if m["role"] == "user"), messages[-1])
    said = asked["content"]
    parts = [{"type": "text", "text": said}] if isinstance(said, str) else said
    asked["content"] = [{"type": "image", "path": path}, *parts]
    return messages


def image_paths(prompt: Prompt) -> list[str]:
    """The files of a prompt's pictures, in order."""
    parts = [] if isinstance(prompt, str) else [m["content"] for m in prompt if not isinstance(m["content"], str)]
    return [part["path"] for content in parts for part in content if part["type"] == "image"]


def _one_of(dataset: Dataset, first: str, second: str) -> str:
    found = [name for name in (first, second) if name in dataset.column_names]
    if not found:
        raise UsageError(f"the rows have no column {first!r} or {second!r}; {nearest(first, dataset.column_names)}")
    if len(found) == 2:
        raise UsageError(f"the rows have both {first!r} and {second!r}, which mean the same: keep one of them")
    return found[0]


def is_text(dataset: Dataset) -> bool:
    """Whether the rows are raw texts: they have a `text` and no prompt to answer."""
    return "text" in dataset.column_names and not {"question", "prompt"} & set(dataset.column_names)


def rows_hash(dataset: Dataset) -> str:
    """SHA-256 (hex) of what the rows say, in their order.

    Every row enters as JSON with sorted keys, without its `id` and without null columns, so that the same rows read
    from JSONL, CSV or Parquet have the same hash, whatever order their columns are in. A picture enters as the hash of
    its file's bytes, wherever that lies.
    """
    digest = hashlib.sha256()
    for row in iterate(dataset):
        kept = {key: value for key, value in row.items() if key != "id" and value is not None}
        if "image_path" in kept:
            kept["image_path"] = _file_hash(kept["image_path"])
        digest.update(json.dumps(kept, sort_keys=True, ensure_ascii=False, default=str).encode() + b"\n")
    return digest.hexdigest()


@functools.lru_cache(maxsize=10_000)
def _file_hash(path: str) -> str:
    return hash_file(path)


def row_texts(dataset: Dataset) -> Iterator[str]:
    """Every text in the rows, those in lists included, row by row: what a tokenizer learns its words from."""
    for row in iterate(dataset):
        for value in row.values():
            yield from (text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str))


def iterate(dataset: Dataset) -> Iterator[dict[str, Any]]:
    """The rows one by one, decoded in batches (many times faster than indexing)."""
    for batch in dataset.iter(batch_size=_BATCH):
        columns = list(batch)
        for values in zip(*batch.values(), strict=True):
            yield dict(zip(columns, values, strict=True))
