"""What lies in the cache folder, and clearing it: entries that another process holds stay."""

from __future__ import annotations

import contextlib
import shutil
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from demur.errors import UnknownNameError
from demur.files import cache_dir

__all__ = ["KINDS", "Entry", "clear", "entries"]

KINDS = {
    "audits": "models measured on rows: the next audit of the same weights reads them",
    "classifiers": "classifiers that studies trained",
    "draws": "answers that the method dart sampled",
    "ensembles": "ensembles of classifiers, and their margins",
    "lab": "lab models and pictures",
    "references": "rows scored by the model that training started from",
    "studies": "measurements of studies, and models that they share",
}
"""Folder in the cache → what it holds; nothing else is ever touched. All of it is made again when it is asked for."""

_WRITING = 3600.0  # seconds; what is half written and younger may still be under way


@dataclass(frozen=True)
class Entry:
    """Something in the cache that is cleared as a whole.

    Attributes:
        kind: of `KINDS`.
        path: a file or a folder.
        size: in bytes, with all that is in it.
        age: seconds since anything in it was written.
    """

    kind: str
    path: Path
    size: int
    age: float

    @property
    def name(self) -> str:
        """Its path below the kind's folder."""
        return self.path.relative_to(cache_dir() / self.kind).as_posix()


def entries(kinds: Sequence[str] = tuple(KINDS), older_than: float = 0.0) -> list[Entry]:
    """What lies in the cache, oldest first.

    Args:
        kinds: of `KINDS`.
        older_than: seconds; what was written since is left out.

    Raises:
        UnknownNameError: there is no such kind.
    """
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise UnknownNameError(f"the cache has no kind {unknown[0]!r}: it has {', '.join(KINDS)}")
    found = [_entry(kind, path) for kind in kinds for path in _paths(cache_dir() / kind)]
    return sorted((entry for entry in found if entry.age >= older_than), key=lambda entry: -entry.age)


def clear(wanted: Sequence[Entry]) -> list[Entry]:
    """Remove entries.

    Args:
        wanted: some of `entries`.

    Returns:
        Those that another process holds or is writing; they are left as they are.

    Raises:
        OSError: something cannot be removed.
    """
    kept = []
    for entry in wanted:
        with _held(entry) as free:
            if free:
                _remove(entry.path)
            else:
                kept.append(entry)
    return kept


def _remove(path: Path) -> None:
    """Remove a file or a folder, which in one step is no entry any more: nobody reads half of it."""
    gone = path.with_name(f".{path.name}.cleared.partial")
    with contextlib.suppress(FileNotFoundError):
        path.rename(gone)
        if gone.is_dir() and not gone.is_symlink():
            shutil.rmtree(gone)
        else:
            gone.unlink()
        if path.parent.name not in KINDS and not any(path.parent.iterdir()):
            path.parent.rmdir()


def _paths(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name.endswith(".lock"):
            continue
        inner = list(path.iterdir()) if path.is_dir() and not path.is_symlink() else []
        # A study's folder holds one folder for each version of its code.
        if folder.name == "studies" and inner and all(child.is_dir() for child in inner):
            yield from sorted(inner)
        else:
            yield path


def _entry(kind: str, path: Path) -> Entry:
    facts = []
    for file in [path, *(path.rglob("*") if path.is_dir() and not path.is_symlink() else ())]:
        with contextlib.suppress(FileNotFoundError):  # of a process that runs meanwhile
            facts.append(file.lstat())
    size = sum(fact.st_size for fact in facts if not stat.S_ISDIR(fact.st_mode))
    return Entry(kind, path, size, max(0.0, time.time() - max((fact.st_mtime for fact in facts), default=0.0)))


@contextlib.contextmanager
def _held(entry: Entry) -> Iterator[bool]:
    """Hold an entry's locks while it is removed; False where another process does, or is writing it."""
    import filelock

    if entry.path.name.endswith(".partial") and entry.age < _WRITING:
        yield False
        return
    beside = entry.path.with_name(f".{entry.path.name}.lock")
    with contextlib.ExitStack() as stack:
        try:
            for lock in (beside, entry.path / ".lock"):
                if lock.is_file():
                    stack.enter_context(filelock.FileLock(lock, timeout=0))
        except filelock.Timeout:
            yield False
            return
        yield True
        beside.unlink(missing_ok=True)
