"""What a row is: the columns of `Example` and `TofuRow`, what each may hold, and a hash over rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from demur.errors import RowError, UsageError
from demur.registry import nearest

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = [
    "Example",
    "Message",
    "Prompt",
    "Row",
    "TofuRow",
    "check_row",
    "question_answer",
    "row_texts",
    "rows_hash",
    "schema_for",
]

Prompt = str | list[dict[str, str]]
"""A prompt as plain data: text, or chat messages `{"role": …, "content": …}`."""

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
            if not isinstance(message, dict) or not isinstance(message.get(key), str):
                raise ValueError(f"message {position} must be an object whose {key!r} is text")
    return value


def _label(value: Any) -> Any:
    if value not in ("comply", "refuse", "abstain"):
        raise ValueError(f"must be comply, refuse or abstain, not {value!r}")
    return value


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"must be an object, not {_describe(value)}")
    return value


# These run before pydantic's own checks, whose wording names Python types that a reader of a data file may not know.
_Text = Annotated[str, BeforeValidator(_text)]
_Id = Annotated[str, BeforeValidator(_identifier)]
_Name = Annotated[str, BeforeValidator(_string)]
_Object = Annotated[dict[str, Any], BeforeValidator(_object)]
_Label = Annotated[Literal["comply", "refuse", "abstain"], BeforeValidator(_label)]


class Message(BaseModel):
    """One turn of a chat.

    Attributes:
        role: who speaks: "system", "user", "assistant", or what the model's template knows.
        content: what is said.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    role: str
    content: str


class Row(BaseModel):
    """The columns that every kind of row may have; columns beyond the documented ones are kept.

    Attributes:
        id: names the row within its set; the row's number, counted from 0, where a source has none.
        label: what a good answer does.
        category: topic or kind of request.
        split: part of the set the row belongs to.
        meta: anything else that should travel with the row.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    id: _Id | None = None
    label: _Label | None = None
    category: _Name | None = None
    split: _Name | None = None
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


def schema_for(columns: Collection[str]) -> type[Row] | None:
    """The kind of row that a set with these columns holds, or None where it is neither of the documented two.

    A set with `choices` is multiple choice, whose `answer` may be a number: it is none of the two.
    """
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
        Two lists with one entry a row.

    Raises:
        UsageError: a column is missing, or both names of one are there and it is unclear which is meant.
        RowError: a row has no response.
    """
    asked, answered = _one_of(dataset, "question", "prompt"), _one_of(dataset, "answer", "response")
    answers = dataset[answered][:]
    if None in answers:
        raise RowError("the rows", answers.index(None) + 1, answered, "is missing or null")
    return dataset[asked][:], answers


def _one_of(dataset: Dataset, first: str, second: str) -> str:
    found = [name for name in (first, second) if name in dataset.column_names]
    if not found:
        raise UsageError(f"the rows have no column {first!r} or {second!r}; {nearest(first, dataset.column_names)}")
    if len(found) == 2:
        raise UsageError(f"the rows have both {first!r} and {second!r}, which mean the same: keep one of them")
    return found[0]


def rows_hash(dataset: Dataset) -> str:
    """SHA-256 (hex) of what the rows say, in their order.

    Every row enters as JSON with sorted keys, without its `id` and without null columns, so that the same rows read
    from JSONL, CSV or Parquet have the same hash, whatever order their columns are in.
    """
    digest = hashlib.sha256()
    for row in iterate(dataset):
        kept = {key: value for key, value in row.items() if key != "id" and value is not None}
        digest.update(json.dumps(kept, sort_keys=True, ensure_ascii=False, default=str).encode() + b"\n")
    return digest.hexdigest()


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
