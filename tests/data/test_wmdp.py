from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from demur.data import read_choices, read_rows, wmdp_set
from demur.errors import RowError, UnknownNameError, UsageError

ROW = {"question": "What is blue?", "choices": ["the sea", "snow", "coal", "grass"], "answer": 0}


def write(file: Path, *rows: dict[str, Any]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_questions_are_read_with_numbers_as_answers(tmp_path: Path) -> None:
    file = write(tmp_path / "q.jsonl", ROW, {**ROW, "answer": 3})
    assert read_choices(file)["answer"][:] == [0, 3]
    assert read_choices(write(tmp_path / "l.jsonl", {**ROW, "answer": "C"}, {**ROW, "answer": "d"}))["answer"][:] == [
        2,
        3,
    ]
    csv = tmp_path / "q.csv"
    csv.write_text('question,choices,answer\nWhat?,"[""a"",""b"",""c"",""d""]",1\n')
    assert read_choices(csv)["choices"][:] == [["a", "b", "c", "d"]]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"choices": ["a", "b", "c"]}, "column 'choices': must have 4 choices, not 3"),
        ({"choices": ["a", "b", "c", ""]}, "column 'choices': item 4 is empty"),
        ({"answer": 4}, "column 'answer': must be the number of a choice, 0 to 3, not 4"),
        ({"answer": "AB"}, "column 'answer': must be the number of a choice, 0 to 3, not 'AB'"),
        ({"answer": -1}, "column 'answer': must be the number"),
        ({"answer": None}, "column 'answer': is missing or null"),
        ({"question": "  "}, "column 'question': is empty"),
    ],
)
def test_a_broken_question_is_named_by_file_line_and_column(tmp_path: Path, change: Any, problem: str) -> None:
    file = write(tmp_path / "q.jsonl", ROW, {**ROW, **change})
    file.write_text("\n" + file.read_text())  # a blank line does no harm to the count
    with pytest.raises(RowError) as error:
        read_choices(file)
    assert str(error.value).startswith(f"{file}, line 3, {problem}")


def test_sets_of_other_sizes_are_still_rows(tmp_path: Path) -> None:
    assert len(read_rows(write(tmp_path / "q.jsonl", {**ROW, "choices": ["a", "b"]}))) == 1


def test_the_benchmark_is_read_from_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "wmdp" / "wmdp-bio.jsonl", ROW)
    lines = [{"text": "A text.", "title": "T"}, {"text": "Another."}]
    write(tmp_path / "wmdp" / "wmdp-corpora" / "cyber-forget-corpus.jsonl", *lines)
    monkeypatch.setenv("DEMUR_SHARED_DATA", str(tmp_path))
    assert read_rows("wmdp:bio")["answer"][:] == [0]
    assert read_rows("wmdp:cyber-forget-corpus")["text"][:] == ["A text.", "Another."]
    raw = read_rows("wmdp:cyber-forget-corpus:lines")["text"][:]
    assert raw == [json.dumps(line) for line in lines], "open-unlearning takes each line for a text, JSON and all"


def test_wrong_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="WMDP has no set 'bo': did you mean bio"):
        wmdp_set(tmp_path, "bo")
    with pytest.raises(UnknownNameError, match="WMDP has no set 'bio:lines'"):
        wmdp_set(tmp_path, "bio:lines")
    with pytest.raises(UsageError, match=r"has no wmdp-bio\.jsonl"):
        wmdp_set(tmp_path, "bio")
    with pytest.raises(UsageError, match="reads the lines of cyber-forget-corpus"):
        wmdp_set(None, "cyber-forget-corpus:lines")
