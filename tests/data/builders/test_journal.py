from __future__ import annotations

import json
from pathlib import Path

import pytest

from demur.data.builders.journal import discard_journal, open_journal
from demur.errors import UsageError


def test_lines_survive_a_kill_up_to_the_last_whole_one(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with pytest.raises(KeyboardInterrupt), open_journal(path, {"seed": 0}) as journal:
        journal.add([{"n": 1}, {"n": 2}])
        raise KeyboardInterrupt
    with path.open("ab") as file:
        file.write(b'{"n": 3')
    with open_journal(path, {"seed": 0}) as journal:
        assert journal.lines == [{"n": 1}, {"n": 2}]
        journal.add([{"n": 4}])
    assert [json.loads(line) for line in path.read_text().splitlines()] == [{"seed": 0}, {"n": 1}, {"n": 2}, {"n": 4}]


def test_other_facts_and_damage_are_named(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with open_journal(path, {"model": "a"}) as journal:
        journal.add([{"n": 1}])
    with pytest.raises(UsageError, match="made with another model"), open_journal(path, {"model": "b"}):
        pass
    path.write_text(path.read_text() + "7\n")
    with pytest.raises(UsageError, match="line 3: not a JSON object"), open_journal(path, {"model": "a"}):
        pass


def test_a_discarded_journal_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with open_journal(path, {}):
        pass
    discard_journal(path)
    assert list(tmp_path.iterdir()) == []
