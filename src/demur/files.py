"""Files that are whole or absent, and hashes that say what they hold."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["atomic_directory", "atomic_write", "cache_dir", "hash_file", "hash_json", "write_json"]


def cache_dir() -> Path:
    """Where lab models and cached references lie: `$DEMUR_CACHE`, or `~/.cache/demur`."""
    return Path(os.environ.get("DEMUR_CACHE") or Path.home() / ".cache" / "demur")


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it takes `path`'s place in one step, on failure it goes away."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_directory(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on success it takes `path`'s place, on failure it goes away."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.", suffix=".partial") as holder:
        inner = Path(holder) / "new"
        inner.mkdir()
        yield inner
        if path.exists():
            path.rename(Path(holder) / "old")
        inner.rename(path)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write `value` as indented JSON, atomically; non-finite numbers are refused."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False, default=str)
    with atomic_write(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def hash_json(value: Any) -> str:
    """SHA-256 (hex) of a JSON value, independent of key order."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def hash_file(path: str | os.PathLike[str]) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
