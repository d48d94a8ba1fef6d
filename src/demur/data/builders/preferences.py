"""Preference pairs: which of two answers is wanted, and the two sides by themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from demur.data.columns import dataset_from_rows
from demur.data.rows import iterate
from demur.errors import UsageError

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["chosen_rows", "preference_rows"]


def preference_rows(rows: Dataset) -> Dataset:
    """Pairs of a wanted and an unwanted answer.

    Rows that have `chosen` and `rejected` are taken as they are. Of rows with a wanted `response`, the unwanted answer
    is `unsafe_response` where the row's `label` is "refuse", and `refusal` where it is "comply"; rows without one are
    left out.

    Args:
        rows: `prompt` with the columns above.

    Returns:
        Rows with `prompt`, `chosen` and `rejected` and the other columns.

    Raises:
        UsageError: the rows have neither kind of columns, or no row has an unwanted answer.
    """
    if {"chosen", "rejected"} <= set(rows.column_names):
        return rows
    if not {"label", "response"} <= set(rows.column_names):
        raise UsageError(
            "pairs are made of the columns chosen and rejected, or of response, label, unsafe_response and refusal: "
            f"the rows have {', '.join(rows.column_names)}"
        )
    out = []
    for row in iterate(rows):
        unwanted = row.get("unsafe_response" if row["label"] == "refuse" else "refusal")
        if unwanted is not None and row["response"] is not None and row["label"] in ("refuse", "comply"):
            out.append({**row, "chosen": row["response"], "rejected": unwanted})
    if not out:
        raise UsageError("no row has an unwanted answer: fill in unsafe_response (refuse) or refusal (comply)")
    return dataset_from_rows([{k: v for k, v in row.items() if k != "response"} for row in out])


def chosen_rows(pairs: Dataset) -> Dataset:
    """The wanted side of pairs, as rows of a prompt and a response."""
    kept = [c for c in pairs.column_names if c not in ("chosen", "rejected")]
    return pairs.select_columns(kept).add_column("response", pairs["chosen"][:])
