"""The audit suites by name."""

from __future__ import annotations

from demur.registry import Registry

__all__ = ["suites"]

suites = Registry(
    "suite",
    group="demur.suites",
    builtins={
        "safe-eraser": "demur.audits.safe_eraser",
        "muse": "demur.audits.muse",
        "removal": "demur.audits.removal_run",
        "tofu": "demur.audits.tofu_run",
        "wmdp": "demur.audits.multiple_choice",
    },
)
"""Every suite: a function that takes an `AuditRequest` and a progress callback, writes results and samples into the
request's folder, and returns the folder and its reports, each with `results`, `notes` and `role`."""
