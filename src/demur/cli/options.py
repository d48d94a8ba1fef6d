"""Options that several verbs read alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from demur.errors import UsageError

__all__ = ["key_values"]


def key_values(pairs: Sequence[str]) -> dict[str, Any]:
    """NAME=VALUE pairs, the values read as YAML scalars.

    Raises:
        UsageError: a pair has no equals sign.
    """
    import yaml

    out = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise UsageError(f"--option {pair!r} is not NAME=VALUE")
        out[name.strip()] = yaml.safe_load(value)
    return out
