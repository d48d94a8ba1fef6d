from __future__ import annotations

from pathlib import Path

import pytest

from demur.data import dataset_from_rows, read_rows, rows_hash, write_rows


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    rows = dataset_from_rows(
        [
            {"id": "a", "question": "wo?", "answer": "Köln \u2028 x", "alternates": ["eins", "zwei"]},
            {"id": "b", "question": "wann?", "answer": "1920", "alternates": None},
        ]
    )
    write_rows(tmp_path / "rows.jsonl", rows)
    assert rows_hash(read_rows(tmp_path / "rows.jsonl")) == rows_hash(rows)
    assert "alternates" not in (tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines()[-1]


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("before")

    class Broken:
        def iter(self, batch_size: int) -> object:
            yield {"a": [1]}
            raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        write_rows(file, Broken())  # type: ignore[arg-type]
    assert file.read_text() == "before" and list(tmp_path.iterdir()) == [file]
