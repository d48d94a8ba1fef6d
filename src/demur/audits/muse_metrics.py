"""The metrics of the MUSE suite (Shi et al. 2024, arXiv 2407.06460), over the tables of its scoring pass.

Privacy leakage and the membership attacks are TOFU's, on the tables `forget` and `holdout`.
"""

from __future__ import annotations

from typing import Any

from demur.audits.estimates import VERBMEM_MEASURES, Audit, Estimate, metric

__all__ = ["HINTS", "MUSE_METRICS"]

_MUSE, _OPEN_UNLEARNING = "2407.06460", "2506.12618"
HINTS = {"rougeL_f1": "it needs generation"}
_BETTER: dict[str, Any] = {"forget": "reference", "retain": "higher", "holdout": "reference"}
_COLUMNS = {
    "": ("rougeL_f1", "ROUGE-L F1 of the continuation against the true one", _MUSE),
    "_extraction_strength": (
        "extraction_strength",
        "share of the continuation completed without error from the rest",
        _OPEN_UNLEARNING,
    ),
    "_exact_memorization": ("exact_memorization", "share of the continuation's tokens ranked first", _OPEN_UNLEARNING),
    "_probability": ("probability", "length-normalised probability of the continuation", _OPEN_UNLEARNING),
}


def _register(name: str, table: str, column: str, paper: str, summary: str) -> None:
    def compute(audit: Audit) -> Estimate:
        return audit.mean(table, column)

    compute.__doc__ = summary
    metric(name, better=_BETTER[table.partition("_")[0]], paper=paper, needs=(table,))(compute)


for _table in ("forget", "retain"):
    _register(
        f"{_table}_knowmem",
        f"{_table}_knowmem",
        "rougeL_f1",
        _MUSE,
        f"Mean ROUGE-L F1 of few-shot answers to questions about the {_table} texts.",
    )
for _table in _BETTER:
    for _suffix in VERBMEM_MEASURES:
        _column, _words, _paper = _COLUMNS[_suffix]
        _register(f"{_table}_verbmem{_suffix}", f"{_table}_verbmem", _column, _paper, f"Mean {_words}, {_table} texts.")

MUSE_METRICS = (
    "forget_knowmem",
    "retain_knowmem",
    *(f"{table}_verbmem{suffix}" for table in _BETTER for suffix in VERBMEM_MEASURES),
    "privleak",
)
"""What the MUSE suite measures, in the order of its table, besides the membership attacks; of the sets that are there,
and always MUSE's own four numbers."""
