"""Deletion requests over time: a tamper-evident ledger, requests answered on one model, and certificates of it."""

from demur.lazy import attach

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "Finding": "verification",
        "History": "history",
        "Ledger": "ledger",
        "Measure": "history",
        "Request": "history",
        "Standing": "ledger",
        "Step": "history",
        "Verdict": "verdict",
        "certificate_facts": "certificate",
        "status_json": "page",
        "verify_certificate": "certificate",
        "write_certificate": "certificate",
        "write_status": "page",
    },
)
