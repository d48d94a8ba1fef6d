"""The audit suites by name.

A suite is a function that measures one model: `suite(lm, data, *, reference, role, run, seed, cache, progress,
**settings)`, with a report that has `results`, `samples`, `notes` and `save(folder)`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from demur.audits.tofu import audit_tofu
from demur.errors import UnknownNameError
from demur.registry import nearest

__all__ = ["SUITES", "find_suite"]

SUITES: dict[str, Callable[..., Any]] = {"tofu": audit_tofu}
"""Suite name → the function that runs it."""


def find_suite(name: str) -> Callable[..., Any]:
    """The suite called `name`.

    Raises:
        UnknownNameError: there is none.
    """
    if name not in SUITES:
        raise UnknownNameError(f"unknown suite {name!r}: {nearest(name, SUITES)}")
    return SUITES[name]
