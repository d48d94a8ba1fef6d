from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demur.files import atomic_directory, atomic_write, hash_file, hash_json, write_json


def test_failed_write_leaves_the_old_file_and_no_rest(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("old")
    with pytest.raises(RuntimeError), atomic_write(file) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert file.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    with atomic_write(file) as temporary:
        temporary.write_text("new")
        assert file.read_text() == "old"
    assert file.read_text() == "new"


def test_failed_folder_leaves_the_old_one_and_no_rest(tmp_path: Path) -> None:
    with atomic_directory(tmp_path / "d") as folder:
        (folder / "x").write_text("1")
    with pytest.raises(RuntimeError), atomic_directory(tmp_path / "d") as folder:
        (folder / "y").write_text("2")
        raise RuntimeError
    assert [p.name for p in (tmp_path / "d").iterdir()] == ["x"]
    with atomic_directory(tmp_path / "d") as folder:
        (folder / "z").write_text("3")
    assert [p.name for p in (tmp_path / "d").iterdir()] == ["z"]
    assert [p.name for p in tmp_path.iterdir()] == ["d"]


def test_json_refuses_numbers_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert not list(tmp_path.iterdir())


values = st.recursive(st.none() | st.integers() | st.text(), lambda c: st.lists(c) | st.dictionaries(st.text(), c))


@given(st.dictionaries(st.text(), values, min_size=2))
def test_hash_ignores_key_order_and_sees_values(value: dict) -> None:
    assert hash_json(value) == hash_json(dict(reversed(value.items())))
    assert hash_json(value) != hash_json({**value, next(iter(value)): "another \x00 value"})
    assert json.loads(json.dumps(value)) == value


def test_file_hash_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    assert hash_file(tmp_path / "x").startswith("ba7816bf8f01cfea")
