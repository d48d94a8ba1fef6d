"""The guards by name, and opening a saved one around an engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demur.errors import UsageError
from demur.registry import Registry

if TYPE_CHECKING:
    from demur.models import Engine

__all__ = ["GUARD_FILE", "guards", "open_guard", "read_guard_file"]

GUARD_FILE = "guard.json"

guards = Registry(
    "guard",
    group="demur.guards",
    builtins={
        "curiosity": "demur.guards.curiosity",
        "guard": "demur.guards.saving",
        "refusal-tokens": "demur.guards.refusal_tokens",
    },
)
"""Every kind of guard that can be saved: a function that takes a folder and an engine and returns the engine guarded.
The folder's `guard.json` names the kind under `kind`."""


def read_guard_file(folder: str | Path) -> dict[str, Any]:
    """What `guard.json` of a folder says.

    Raises:
        UsageError: there is none, or it cannot be read.
    """
    path = Path(folder) / GUARD_FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{folder} holds no guard: {GUARD_FILE} cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise UsageError(f"{path} is not JSON: {error}") from error
    if not isinstance(found, dict) or "kind" not in found:
        raise UsageError(f"{path} does not say what kind of guard it is")
    return found


def open_guard(folder: str | Path, engine: Engine) -> Engine:
    """A saved guard of any kind around an engine.

    Args:
        folder: what the guard was saved to.
        engine: what it is to stand around.

    Raises:
        UsageError: the folder holds no guard of a known kind, or it was made for another model.
    """
    guarded: Engine = guards.get(str(read_guard_file(folder)["kind"])).function(folder, engine)
    return guarded
