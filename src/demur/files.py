"""Files that are whole or absent, and hashes that say what they hold."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from demur.errors import UsageError

__all__ = [
    "atomic_directory",
    "atomic_write",
    "cache_dir",
    "disk_full",
    "hash_file",
    "hash_json",
    "read_settings",
    "require_writable",
    "writable_cache",
    "write_json",
]


def cache_dir() -> Path:
    """Where lab models and cached references lie: `$DEMUR_CACHE`, or `~/.cache/demur`."""
    return Path(os.environ.get("DEMUR_CACHE") or Path.home() / ".cache" / "demur")


def writable_cache() -> Path:
    """`cache_dir`, found to be one that can be written to.

    Raises:
        UsageError: it cannot.
    """
    try:
        require_writable(cache_dir())
    except UsageError as error:
        raise UsageError(f"{error}: set DEMUR_CACHE to a folder with space that you may write to") from error
    return cache_dir()


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


def require_writable(path: str | os.PathLike[str]) -> None:
    """Find out whether a file or folder could be written at `path`, before the work whose result it is to hold.

    Raises:
        UsageError: nothing can be made in the nearest folder that exists.
    """
    found = Path(path).absolute()
    folder = found if found.is_dir() else found.parent
    while not os.path.lexists(folder):
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            return
    except OSError as error:
        raise UsageError(f"cannot write to {path}: {error.strerror or error} ({folder})") from error


def disk_full(error: BaseException) -> bool:
    """Whether an error says that there is no space left; the writers of weights and tokenizers say it in words."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    text = str(error)
    # torch's archive writer only says where in its source it stopped.
    return "No space left" in text or ("inline_container" in text and "Reader" not in text)


def read_settings(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a YAML file of names and values.

    Raises:
        UsageError: the file cannot be read, or is something else; the message names the line.
    """
    import yaml

    try:
        found = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8 text") from None
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        raise UsageError(f"{path}{f', line {mark.line + 1}' if mark else ''}: not YAML: {problem or error}") from error
    if not isinstance(found, dict):
        raise UsageError(f"{path} is not a list of settings and their values")
    return found


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
