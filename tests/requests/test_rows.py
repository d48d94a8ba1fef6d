from __future__ import annotations

from pathlib import Path

import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from demur import DemurError
from demur.data import read_rows
from demur.requests.rows import content, read_requested, row_hashes, rows_digest, write_rows

TEXT = st.text(min_size=1).filter(str.strip)


@given(TEXT, TEXT)
def test_a_row_is_the_same_under_either_naming_and_with_more_columns(asked: str, answered: str) -> None:
    first = content({"id": "1", "question": asked, "answer": answered})
    assert first == content({"prompt": f"  {asked}\n", "response": answered, "split": "forget", "text": None})
    assert first == content({"prompt": [{"role": "user", "content": asked}], "response": answered})
    assert first != content({"question": asked, "answer": answered + " not"})


def test_rows_that_differ_in_what_they_say_differ(tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"one")
    rows = [
        {"question": "who?", "answer": "oda"},
        {"question": "who?", "answer": "kell"},
        {"question": "who? oda", "answer": "."},
        {"question": "who?", "answer": "oda", "image_path": str(picture)},
        {"question": "who?", "answer": "oda", "choices": ["a", "b", "c", "d"]},
        {"prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "who?"}], "response": "oda"},
        {"text": "who? oda"},
    ]
    assert len({tuple(content(row)) for row in rows}) == len(rows)
    before = content(rows[3])
    picture.write_bytes(b"two")
    assert content(rows[3]) != before


def test_hashes_depend_on_the_salt_and_a_digest_not_on_the_order() -> None:
    rows = Dataset.from_list([{"question": q, "answer": "a"} for q in ("one", "two", "three")])
    hashes = row_hashes(rows, "salt")
    assert row_hashes(rows, "pepper") != hashes and len(set(hashes)) == 3
    assert rows_digest(hashes) == rows_digest(hashes[::-1]) != rows_digest(hashes[:2])


def test_written_rows_say_the_same_under_ids_that_say_nothing(tmp_path: Path) -> None:
    source = read_rows("lab:almanac-tiny:forget[0:4]")
    write_rows(tmp_path / "rows.jsonl", [("7", source, [1, 3])])
    found = read_rows(tmp_path / "rows.jsonl")
    assert found["id"][:] == ["7/2", "7/4"]
    hashes = [row_hashes(source, "s")[place] for place in (1, 3)]
    assert row_hashes(read_requested(tmp_path / "rows.jsonl", 7, hashes, "s"), "s") == hashes
    with pytest.raises(DemurError, match="not those that request 7"):
        read_requested(tmp_path / "rows.jsonl", 7, hashes[::-1], "s")
    with pytest.raises(DemurError, match="request 7 are gone"):
        read_requested(tmp_path / "none.jsonl", 7, hashes, "s")
