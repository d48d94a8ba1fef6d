from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demur.data.formats import Parsed, parse_csv, parse_json, parse_jsonl
from demur.errors import RowError

TEXT = st.text(min_size=1)
ROWS = st.lists(st.fixed_dictionaries({"question": TEXT, "answer": TEXT}), min_size=1, max_size=8)
GAPS = st.lists(st.integers(0, 3), min_size=8, max_size=8)


def jsonl(rows: list[Any], gaps: list[int], end: str = "\n", ascii_only: bool = False) -> tuple[bytes, list[int]]:
    """Rows as JSON lines with blank lines in between, and the line each is on."""
    text, lines, line = "", [], 1
    for row, gap in zip(rows, gaps, strict=False):
        text += end * gap + json.dumps(row, ensure_ascii=ascii_only) + end
        lines.append(line + gap)
        line += gap + 1
    return text.encode(), lines


@given(ROWS, GAPS, st.sampled_from(["\n", "\r\n", " \n"]), st.booleans(), st.booleans())
def test_jsonl_gives_back_rows_and_their_lines(
    rows: list[dict[str, str]], gaps: list[int], end: str, mark: bool, ascii_only: bool
) -> None:
    data, lines = jsonl(rows, gaps, end, ascii_only)
    for parse in (parse_jsonl, parse_json):
        assert parse(b"\xef\xbb\xbf" * mark + data, "f") == Parsed(rows, lines)


@given(ROWS, GAPS, st.data())
def test_a_broken_json_line_is_named_exactly(rows: list[dict[str, str]], gaps: list[int], data: st.DataObject) -> None:
    good, lines = jsonl(rows, gaps)
    victim = data.draw(st.sampled_from(lines))
    broken = good.decode().split("\n")
    broken[victim - 1] = broken[victim - 1][:-1]  # the closing brace is lost
    with pytest.raises(RowError, match="not valid JSON at character") as caught:
        parse_jsonl("\n".join(broken).encode(), "f.jsonl")
    assert caught.value.line == victim


@given(ROWS, st.none() | st.integers(0, 4))
def test_a_json_list_gives_back_rows_and_the_line_each_starts_on(
    rows: list[dict[str, str]], indent: int | None
) -> None:
    text = json.dumps(rows, ensure_ascii=False, indent=indent)
    starts = [i for i, line in enumerate(text.split("\n"), start=1) if line.lstrip(" ").startswith("{")]
    assert parse_json(text.encode(), "f") == Parsed(rows, starts if indent is not None else [1] * len(rows))


@given(ROWS, st.sampled_from(["\n", "\r\n"]), st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]))
def test_csv_gives_back_rows_whatever_they_hold(rows: list[dict[str, str]], end: str, quoting: Any) -> None:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, ["question", "answer"], lineterminator=end, quoting=quoting)
    writer.writeheader()
    writer.writerows(rows)
    parsed = parse_csv(out.getvalue().encode(), "f.csv")
    assert parsed.rows == rows
    line = 2
    for row, found in zip(rows, parsed.lines, strict=True):
        assert found == line
        line += 1 + sum(value.count("\n") for value in row.values())


@pytest.mark.parametrize(
    ("parse", "text", "line", "said"),
    [
        (parse_jsonl, '{"a": 1}\n\n[1]\n', 3, "must be a JSON object"),
        (parse_jsonl, '{"a": 1}\n{"a": NaN}\n', 2, "NaN is no JSON value"),
        (parse_jsonl, '{"a": 1}\n{"a": 1} {"a": 2}\n', 2, "Extra data"),
        (parse_jsonl, "{'a': 1}\n", 1, "double quotes"),
        (parse_jsonl, '\n{"a": ' + "[" * 100_000 + "\n", 2, "not valid JSON"),
        (parse_json, '[\n{"a": 1},\n{"a": }\n]', 3, "Expecting value"),
        (parse_json, '[{"a": 1}\n{"a": 2}]', 2, "Expecting ',' delimiter"),
        (parse_json, '[{"a": 1},\n{"a": 2}', 2, "Expecting ',' delimiter"),
        (parse_json, '[\n{"a": 1},\n7]', 3, "must be a JSON object"),
        (parse_json, '[\n{"a": 1},\n{"a": Infinity}]', 3, "Infinity is no JSON value"),
        (parse_json, '[{"a": 1}]\nmore', 2, "Extra data"),
        (parse_json, '{"a": 1}\n{"a": 2\n', 3, "not valid JSON"),
        (parse_csv, "a,b\n1,2\n\n1,2,3\n", 4, "3 cells, but the header names 2 columns"),
        (parse_csv, 'a,b\n"1\n2",3\n4\n', 4, "1 cells"),
        (parse_csv, 'a,b\n1,2\n3,"4\n5,6\n', 3, "quote left open"),
        (parse_csv, "a,b,a\n1,2,3\n", 1, "more than once"),
        (parse_csv, "question,meta\nq,{'a': 1}\n", 2, "not valid JSON"),
    ],
)
def test_what_is_broken_is_named_by_line(
    parse: Callable[[bytes, str], Parsed], text: str, line: int, said: str
) -> None:
    with pytest.raises(RowError) as caught:
        parse(text.encode(), "data/f")
    assert caught.value.line == line
    assert f"data/f, line {line}" in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.parametrize("parse", [parse_jsonl, parse_json, parse_csv])
def test_bytes_that_are_not_utf8_are_named_by_line(parse: Callable[[bytes, str], Parsed]) -> None:
    with pytest.raises(RowError, match=r"line 3.*0xe9 is not UTF-8"):
        parse('\n{"a": "ü"}\n'.encode() + '{"a": "é"}\n'.encode("latin-1"), "f")
    with pytest.raises(RowError, match="UTF-16"):
        parse('{"a": "b"}'.encode("utf-16"), "f")


@pytest.mark.parametrize("parse", [parse_jsonl, parse_json, parse_csv])
@pytest.mark.parametrize("data", [b"", b"\n \r\n", b"\xef\xbb\xbf"])
def test_a_file_without_text_has_no_rows(parse: Callable[[bytes, str], Parsed], data: bytes) -> None:
    assert parse(data, "f") == Parsed()


def test_an_empty_list_has_no_rows() -> None:
    assert parse_json(b" [ ] ", "f") == Parsed()


def test_one_object_over_many_lines_is_one_row() -> None:
    assert parse_json(b'{\n "a": 1\n}\n', "f") == Parsed([{"a": 1}], [1])


def test_csv_cells_of_structured_columns_hold_json_and_others_do_not() -> None:
    out = io.StringIO(newline="")
    chat = [{"role": "user", "content": "Hi"}]
    cells = [json.dumps(chat), json.dumps(["b", "c"]), json.dumps({"page": 1}), "[1]", ""]
    csv.writer(out).writerows(
        [["prompt", "perturbed_answer", "meta", "answer", "label"], cells, ['[{"x": 1}]', "", "", "{}", ""]]
    )
    assert parse_csv(out.getvalue().encode(), "f").rows == [
        {"prompt": chat, "perturbed_answer": ["b", "c"], "meta": {"page": 1}, "answer": "[1]", "label": None},
        {"prompt": '[{"x": 1}]', "perturbed_answer": None, "meta": None, "answer": "{}", "label": None},
    ]


def test_csv_takes_long_documents_and_leaves_the_process_limit_alone() -> None:
    before = csv.field_size_limit()
    text = "x" * 300_000
    assert parse_csv(f"text\n{text}\n".encode(), "f").rows == [{"text": text}]
    assert csv.field_size_limit() == before


def test_an_index_column_without_a_name_gets_one() -> None:
    assert parse_csv(b",question\n0,q\n", "f").rows == [{"column_1": "0", "question": "q"}]
