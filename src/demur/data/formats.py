"""Text formats parsed into rows, each with the line it starts on."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

from demur.errors import RowError

__all__ = ["PARSERS", "Parsed", "parse_csv", "parse_json", "parse_jsonl"]

# CSV column → how a cell that holds JSON begins
_JSON_CELLS = {"choices": "[", "meta": "{", "perturbed_answer": "[", "prompt": "[{"}


@dataclass
class Parsed:
    """Rows and the line of the source, counted from 1, that each starts on."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)

    def add(self, row: Any, file: str, line: int) -> None:
        """Append a row.

        Raises:
            RowError: it is no JSON object.
        """
        if not isinstance(row, dict):
            raise RowError(file, line, None, f'every row must be a JSON object {{"column": value}}, not {row!r:.60}')
        self.rows.append(row)
        self.lines.append(line)


def parse_jsonl(data: bytes, file: str) -> Parsed:
    """One JSON object a line; blank lines, CRLF and a byte-order mark are passed over.

    Raises:
        RowError: a line is not UTF-8, not JSON, or no object.
    """
    parsed = Parsed()
    for number, line in enumerate(_decode(data, file).split("\n"), start=1):  # not splitlines: U+2028 may be in a text
        if line.strip():
            try:
                row = _DECODER.decode(line)
            except (ValueError, RecursionError) as error:
                raise _json_error(file, number, error) from None
            parsed.add(row, file, number)
    return parsed


def parse_json(data: bytes, file: str) -> Parsed:
    """A JSON list of objects, or objects one after another (JSON lines that were named .json).

    Raises:
        RowError: the text is not UTF-8, not JSON, or an element is no object.
    """
    text = _decode(data, file)
    parsed, line, counted = Parsed(), 1, 0
    in_list = text.lstrip().startswith("[")
    if in_list:
        try:
            json.loads(text)  # from here on the list is known to be closed and its commas in place
        except (ValueError, RecursionError) as error:
            raise _json_error(file, line, error) from None
    position = text.index("[") + 1 if in_list else 0
    while True:
        position = _skip(text, position, " \t\r\n," if in_list else " \t\r\n")
        if position == len(text) or (in_list and text[position] == "]"):
            return parsed
        line, counted = line + text.count("\n", counted, position), position
        try:
            row, position = _DECODER.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            raise _json_error(file, line, error) from None
        parsed.add(row, file, line)


def parse_csv(data: bytes, file: str) -> Parsed:
    """Comma-separated values with a header; an empty cell is null.

    Cells of the columns that are not plain text (`meta`, `choices`, `perturbed_answer`, chat messages in `prompt`) hold
    JSON.

    Raises:
        RowError: the text is not UTF-8, a row has more or fewer cells than the header, or a quote is not closed.
    """
    # Lines end at \n only, so that line breaks of other kinds within a cell survive.
    reader = csv.reader(io.StringIO(_decode(data, file), newline="\n"), strict=True)
    limit = csv.field_size_limit(sys.maxsize)  # documents are longer than csv's 128 KiB; the limit is process-wide
    parsed, header, line = Parsed(), list[str](), 1
    try:
        for cells in reader:
            if len(cells) < 2 and not "".join(cells).strip():
                pass  # a blank line
            elif not header:
                header = [name.strip() or f"column_{i}" for i, name in enumerate(cells, start=1)]
                twice = sorted({name for name in header if header.count(name) > 1})
                if twice:
                    raise RowError(file, line, twice[0], "the header names this column more than once")
            elif len(cells) != len(header):
                raise RowError(file, line, None, f"{len(cells)} cells, but the header names {len(header)} columns")
            else:
                row = {name: _cell(name, text, file, line) for name, text in zip(header, cells, strict=True)}
                parsed.add(row, file, line)
            line = reader.line_num + 1
    except csv.Error as error:
        raise RowError(file, line, None, f"not valid CSV: {error} (is a quote left open?)") from None
    finally:
        csv.field_size_limit(limit)
    return parsed


PARSERS: dict[str, Callable[[bytes, str], Parsed]] = {
    ".jsonl": parse_jsonl,
    ".ndjson": parse_jsonl,
    ".json": parse_json,
    ".csv": parse_csv,
}


def _decode(data: bytes, file: str) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise RowError(file, 1, None, "the file is UTF-16, not UTF-8: save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise RowError(file, line, None, f"byte 0x{data[error.start]:02x} is not UTF-8: save it as UTF-8") from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value (write null)")


_DECODER = json.JSONDecoder(parse_constant=_no_constant)


def _json_error(file: str, line: int, error: Exception) -> RowError:
    if isinstance(error, json.JSONDecodeError):
        line = line if "\n" not in error.doc else error.lineno
        return RowError(file, line, None, f"not valid JSON at character {error.colno}: {error.msg}")
    return RowError(file, line, None, f"not valid JSON: {error}")


def _skip(text: str, position: int, characters: str = " \t\r\n") -> int:
    while position < len(text) and text[position] in characters:
        position += 1
    return position


def _cell(column: str, text: str, file: str, line: int) -> Any:
    if text == "":
        return None
    if column not in _JSON_CELLS or not text.startswith(_JSON_CELLS[column]):
        return text
    try:
        value = _DECODER.decode(text)
    except ValueError as error:
        if column == "prompt":  # an ordinary prompt may begin with a bracket
            return text
        raise RowError(file, line, column, f"is not valid JSON: {error}") from None
    return text if column == "prompt" and not all("role" in message for message in value) else value
