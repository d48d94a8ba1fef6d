from __future__ import annotations

from pathlib import Path

import filelock
import pytest

from cli.command import demur


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DEMUR_CACHE", str(tmp_path))
    (tmp_path / "draws").mkdir()
    (tmp_path / "draws" / "a.jsonl").write_text("x" * 2500)
    (tmp_path / "lab" / "almanac-1").mkdir(parents=True)
    return tmp_path


def test_the_cache_is_shown_by_kind() -> None:
    shown = demur("cache")
    assert shown.code == 0 and "2.5 KB" in shown.out
    assert all(kind in shown.out for kind in ("audits", "draws", "lab", "references", "studies"))


def test_nothing_is_removed_without_yes(cache: Path) -> None:
    named = demur("cache", "clear", "draws")
    assert named.code == 0 and "draws/a.jsonl: 2.5 KB, written " in named.out
    assert "would remove 1 entry, 2.5 KB: add --yes" in named.out
    assert "would remove 0 entries" in demur("cache", "clear", "draws", "--older-than", 1).out
    assert (cache / "draws" / "a.jsonl").exists()
    done = demur("cache", "clear", "draws", "--yes")
    assert "removed 1 entry, 2.5 KB" in done.out and not (cache / "draws" / "a.jsonl").exists()
    assert (cache / "lab" / "almanac-1").exists()
    assert "removed 1 entry" in demur("cache", "clear", "all", "--yes").out


def test_what_is_in_use_is_named_and_kept(cache: Path) -> None:
    with filelock.FileLock(cache / "draws" / ".a.jsonl.lock"):
        done = demur("cache", "clear", "all", "--yes")
    assert done.code == 0 and "draws/a.jsonl: kept, another process is using it" in done.out
    assert "removed 1 entry, 0 B" in done.out and (cache / "draws" / "a.jsonl").exists()


def test_an_unknown_kind_is_a_sentence() -> None:
    wrong = demur("cache", "clear", "models")
    assert wrong.code == 2 and "no kind 'models'" in wrong.sentence
