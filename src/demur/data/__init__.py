"""Rows: reading and checking them, the TOFU benchmark's splits, overlap between sets, and batches.

A data set is a `datasets.Dataset` whose columns are those of `Example` (a prompt and what to answer) or of `TofuRow`
(a question, its answer, and rewritings of both). Columns beyond these are kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from demur.lazy import attach

if TYPE_CHECKING:
    from demur.data.abstentions import ABSTENTIONS as ABSTENTIONS
    from demur.data.batch import Batch as Batch
    from demur.data.batch import Encoded as Encoded
    from demur.data.batch import collate as collate
    from demur.data.columns import dataset_from_rows as dataset_from_rows
    from demur.data.readers import check_rows as check_rows
    from demur.data.readers import read_lines as read_lines
    from demur.data.readers import read_rows as read_rows
    from demur.data.rows import Example as Example
    from demur.data.rows import Message as Message
    from demur.data.rows import Prompt as Prompt
    from demur.data.rows import TofuRow as TofuRow
    from demur.data.rows import question_answer as question_answer
    from demur.data.rows import row_texts as row_texts
    from demur.data.rows import rows_hash as rows_hash
    from demur.data.splits import find_overlap as find_overlap
    from demur.data.splits import require_disjoint as require_disjoint
    from demur.data.tofu import tofu_split as tofu_split

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "ABSTENTIONS": "abstentions",
        "Batch": "batch",
        "Encoded": "batch",
        "Example": "rows",
        "Message": "rows",
        "Prompt": "rows",
        "TofuRow": "rows",
        "check_rows": "readers",
        "collate": "batch",
        "dataset_from_rows": "columns",
        "find_overlap": "splits",
        "question_answer": "rows",
        "read_lines": "readers",
        "read_rows": "readers",
        "require_disjoint": "splits",
        "row_texts": "rows",
        "rows_hash": "rows",
        "tofu_split": "tofu",
    },
)
