from __future__ import annotations

import os
import re
import time
from pathlib import Path

import filelock
import pytest

import demur
from demur.cache import KINDS, clear, entries
from demur.errors import UnknownNameError

DAY = 86400.0


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with a folder, a file, two versions of a study, shared models of studies, and what is none of its own."""
    monkeypatch.setenv("DEMUR_CACHE", str(tmp_path))
    for name, content in {
        "lab/almanac-1/model.safetensors": "x" * 100,
        "draws/a.jsonl": "x" * 10,
        "draws/.a.jsonl.lock": "",
        "studies/npo/code1/part/seed-1.json": "{}",
        "studies/npo/code2/part/seed-1.json": "{}",
        "studies/authors-1/forget.jsonl": "",
        "studies/authors-1/.lock": "",
        "studies/authors-1/base/model": "x" * 50,
        "thesis/chapter.tex": "mine",
        "notes.txt": "mine",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    return tmp_path


def aged(path: Path, days: float) -> None:
    for file in [path, *path.rglob("*")]:
        os.utime(file, (time.time() - days * DAY,) * 2)


def names(found: list) -> set[str]:
    return {f"{entry.kind}/{entry.name}" for entry in found}


def test_what_is_cleared_as_a_whole_is_one_entry(cache: Path) -> None:
    found = {f"{entry.kind}/{entry.name}": entry.size for entry in entries()}
    assert found == {
        "lab/almanac-1": 100,
        "draws/a.jsonl": 10,
        "studies/npo/code1": 2,
        "studies/npo/code2": 2,
        "studies/authors-1": 50,
    }


def test_an_entry_is_as_old_as_what_was_written_last_in_it(cache: Path) -> None:
    aged(cache / "studies", 40)
    aged(cache / "lab", 10)
    os.utime(cache / "studies" / "authors-1" / "base" / "model", (time.time() - 5 * DAY,) * 2)
    assert names(entries(older_than=30 * DAY)) == {"studies/npo/code1", "studies/npo/code2"}
    assert [entry.name for entry in entries()][-3:] == ["almanac-1", "authors-1", "a.jsonl"]
    assert entries(("studies",))[-1].age == pytest.approx(5 * DAY, rel=1e-3)


def test_clearing_leaves_what_is_not_the_caches_own(cache: Path) -> None:
    assert clear(entries()) == []
    assert entries() == [] and not (cache / "draws" / ".a.jsonl.lock").exists()
    left = sorted(path.relative_to(cache).as_posix() for path in cache.rglob("*"))
    assert left == ["draws", "lab", "notes.txt", "studies", "thesis", "thesis/chapter.tex"]


@pytest.mark.parametrize(
    ("lock", "name"), [("draws/.a.jsonl.lock", "draws/a.jsonl"), ("studies/authors-1/.lock", None)]
)
def test_what_another_process_holds_stays(cache: Path, lock: str, name: str | None) -> None:
    with filelock.FileLock(cache / lock):
        assert names(clear(entries())) == {name or "studies/authors-1"}
    assert names(entries()) == {name or "studies/authors-1"}
    assert clear(entries()) == [] and entries() == []


def test_what_is_half_written_stays_while_it_is_young(cache: Path) -> None:
    half = cache / "lab" / ".almanac-2.x7.partial"
    half.mkdir()
    assert names(clear(entries(("lab",)))) == {"lab/.almanac-2.x7.partial"}
    aged(half, 1)
    assert clear(entries(("lab",))) == [] and not half.exists()


def test_an_unknown_kind_is_named(cache: Path) -> None:
    with pytest.raises(UnknownNameError, match="no kind 'thesis': it has audits"):
        entries(("thesis",))


def test_an_empty_cache_has_no_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEMUR_CACHE", str(tmp_path / "none"))
    assert entries() == []


def test_every_folder_that_the_package_caches_in_is_known() -> None:
    source = "\n".join(path.read_text() for path in Path(demur.__file__).parent.rglob("*.py"))
    used = re.findall(r'(?:cache_dir|writable_cache)\(\) / "(\w+)"', source)
    assert set(used) == set(KINDS)
