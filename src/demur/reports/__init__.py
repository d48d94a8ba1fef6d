"""What was measured, for people: tables, plots, verdicts by stated rules, and the self-contained HTML report."""

from __future__ import annotations

from demur.lazy import attach

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "Finding": "verdict",
        "Line": "plots",
        "Mark": "plots",
        "Rules": "verdict",
        "Scale": "axes",
        "Verdict": "verdict",
        "describe": "glossary",
        "interval": "tables",
        "judge": "verdict",
        "lines": "plots",
        "number": "tables",
        "p_value": "tables",
        "read_runs": "evidence",
        "scatter": "plots",
        "write_report": "page",
    },
)
