"""The rows of requests: known by hash, and on disk only as long as they are needed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demur.errors import DemurError
from demur.files import atomic_write, hash_file
from demur.requests.store import digest

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["content", "read_requested", "row_hashes", "rows_digest", "write_rows"]


def content(row: Mapping[str, Any]) -> list[str]:
    """What a row says, whatever its source calls its columns: prompt and answer, or a text; without case and spacing.

    A question with its answer is the same whether rewritings of it stand beside it or not. Rows of another kind are
    known by all of their columns but `id`.
    """
    asked = row.get("question") or row.get("prompt")
    answered = row.get("answer") or row.get("response")
    if asked is not None and answered is not None and row.get("choices") is None:
        picture = row.get("image_path")
        return [_normal(asked), _normal(answered), *([] if picture is None else [hash_file(picture)])]
    if row.get("text") is not None:
        return [_normal(row["text"])]
    kept = {key: value for key, value in row.items() if key != "id" and value is not None}
    return [json.dumps(kept, sort_keys=True, ensure_ascii=False, default=str)]


def _normal(value: Any) -> str:
    if isinstance(value, list):  # chat messages; one question from the user is that question
        alone = len(value) == 1 and value[0]["role"] == "user"
        value = "\n".join(("" if alone else f"{turn['role']}: ") + _said(turn["content"]) for turn in value)
    return " ".join(str(value).split()).casefold()


def _said(content: str | list[dict[str, Any]]) -> str:
    if isinstance(content, str):
        return content
    return " ".join(part["text"] if part["type"] == "text" else hash_file(part["path"]) for part in content)


def row_hashes(rows: Dataset, salt: str) -> list[str]:
    """SHA-256 (hex) of what each row says, with the ledger's salt."""
    from demur.data.rows import iterate

    return [digest([salt, *content(row)]) for row in iterate(rows)]


def rows_digest(hashes: Iterable[str]) -> str:
    """One hash over a set of rows, whatever their order."""
    return digest(sorted(set(hashes)))


def write_rows(path: Path, parts: Iterable[tuple[str, Dataset, Iterable[int]]]) -> None:
    """Write rows as one file of JSON lines, under ids that say nothing about them.

    Args:
        path: the file.
        parts: sets of rows with a name and the places chosen, counted from 0: their ids are `name/1`, `name/2`, …
    """
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for name, rows, places in parts:
            for place in places:
                row = {key: value for key, value in rows[place].items() if value is not None and key != "id"}
                file.write(json.dumps({"id": f"{name}/{place + 1}", **row}, ensure_ascii=False, default=str) + "\n")


def read_requested(path: Path, request: int, hashes: list[str], salt: str) -> Dataset:
    """The rows that were put aside for a request, found to be those that were asked for.

    Raises:
        DemurError: the file is gone or holds something else.
    """
    from demur.data import read_rows

    if not path.is_file():
        raise DemurError(f"the rows of request {request} are gone from {path}: put them back, or reject the request")
    rows = read_rows(path)
    if row_hashes(rows, salt) != hashes:
        raise DemurError(f"the rows in {path} are not those that request {request} asked for: put them back")
    return rows
