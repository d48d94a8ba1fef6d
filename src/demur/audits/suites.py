"""The audit suites by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from demur.audits.tofu_run import run_tofu
from demur.errors import UnknownNameError
from demur.registry import nearest

__all__ = ["SUITES", "find_suite"]

SUITES: dict[str, Callable[..., Any]] = {"tofu": run_tofu}
"""Suite name → a function that takes an `AuditRequest` and a progress callback, writes results and samples into the
request's folder, and returns the folder and its reports, each with `results`, `notes` and `role`."""


def find_suite(name: str) -> Callable[..., Any]:
    """The suite called `name`.

    Raises:
        UnknownNameError: there is none.
    """
    if name not in SUITES:
        raise UnknownNameError(f"unknown suite {name!r}: {nearest(name, SUITES)}")
    return SUITES[name]
