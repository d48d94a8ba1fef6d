"""The audit suites by name."""

from __future__ import annotations

from demur.registry import Registry

__all__ = ["suites"]

suites = Registry(
    "suite",
    group="demur.suites",
    builtins={
        "abstention": "demur.audits.abstention",
        "classifier-unlearning": "demur.audits.classifiers.suite",
        "corrective": "demur.audits.classifiers.corrective_suite",
        "coverage": "demur.audits.coverage",
        "safe-eraser": "demur.audits.safe_eraser",
        "honesty": "demur.audits.honesty_run",
        "muse": "demur.audits.muse",
        "parity": "demur.audits.parity_run",
        "refusal": "demur.audits.refusal",
        "removal": "demur.audits.removal_run",
        "representation": "demur.audits.classifiers.representation_suite",
        "tofu": "demur.audits.tofu_run",
        "wmdp": "demur.audits.multiple_choice",
        "worst-case": "demur.audits.classifiers.worst_case_suite",
    },
)
"""Every suite: a function that takes an `AuditRequest` and a progress callback, writes results and samples into the
request's folder, and returns the folder and its reports, each with `results`, `notes` and `role`."""
