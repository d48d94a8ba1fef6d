"""A file of JSON lines that only grows: work that was killed goes on behind the last whole line."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from demur.errors import UsageError

__all__ = ["Journal", "discard_journal", "open_journal"]


class Journal:
    """What an open file holds, and a way to add to it.

    Args:
        file: opened for appending.
        lines: the objects that it held behind its first line.
    """

    def __init__(self, file: Any, lines: list[dict[str, Any]]) -> None:
        self._file, self.lines = file, lines

    def add(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Write objects, one a line; they are on disk when this returns."""
        for line in lines:
            self._file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())


@contextlib.contextmanager
def open_journal(path: str | os.PathLike[str], facts: Mapping[str, Any]) -> Iterator[Journal]:
    """Open a journal, or begin one; what a killed process left half written at its end is cut off.

    Args:
        path: the file; its lock lies beside it.
        facts: what its lines depend on (model, rows, seed …), as JSON: its first line.

    Raises:
        UsageError: the file was made with other facts, is damaged, cannot be written, or is in use.
    """
    import filelock

    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(_lock(path), timeout=0), path.open("a+b") as file:
            yield Journal(file, _read(path, file, facts))
    except filelock.Timeout:
        raise UsageError(f"{path}: another process is writing it: wait for it or name another file") from None


def discard_journal(path: str | os.PathLike[str]) -> None:
    """Remove a journal that nobody needs any more, and its lock."""
    for file in (Path(path), _lock(Path(path))):
        file.unlink(missing_ok=True)


def _lock(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


def _read(path: Path, file: Any, facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    file.seek(0)
    lines = file.read().split(b"\n")
    torn = lines.pop()  # empty where the last line is whole
    if torn:
        file.truncate(file.tell() - len(torn))
    if not lines:
        file.write(json.dumps(facts, ensure_ascii=False).encode() + b"\n")
        file.flush()
        return []
    held = []
    for number, line in enumerate(lines, start=1):
        try:
            held.append(dict(json.loads(line)))
        except (ValueError, TypeError):
            raise UsageError(f"{path}, line {number}: not a JSON object: remove the file to begin anew") from None
    wanted = json.loads(json.dumps(facts))
    other = [name for name in wanted if held[0].get(name) != wanted[name]]
    if other:
        raise UsageError(f"{path} was made with another {other[0]}: remove it to begin anew, or name another file")
    return held[1:]
