from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from demur.cli.data import app
from demur.data import read_rows, rows_hash
from demur.errors import RowError


def test_check_prints_what_was_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"question": "q?", "answer": "ä", "label": null}\n{"question": "r?", "answer": "b"}\n')
    shown = CliRunner().invoke(app, ["check", str(path), "--require", "question"])
    assert shown.exit_code == 0, shown.output
    for text in ("2 rows", rows_hash(read_rows(path)), "answer: 2 of 2", "label: 0 of 2", '"answer": "ä"'):
        assert text in shown.output


def test_check_fails_with_the_bad_row(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"question": "q?", "answer": "a"}\n{"question": "r?"}\n')
    shown = CliRunner().invoke(app, ["check", str(tmp_path / "rows.jsonl")])
    assert isinstance(shown.exception, RowError)
    assert shown.exception.line == 2
