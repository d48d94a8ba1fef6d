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
    from demur.data.muse import completion_rows as completion_rows
    from demur.data.muse import muse_split as muse_split
    from demur.data.muse import write_muse as write_muse
    from demur.data.readers import check_rows as check_rows
    from demur.data.readers import read_lines as read_lines
    from demur.data.readers import read_rows as read_rows
    from demur.data.rows import ChoiceRow as ChoiceRow
    from demur.data.rows import Example as Example
    from demur.data.rows import Message as Message
    from demur.data.rows import Prompt as Prompt
    from demur.data.rows import TofuRow as TofuRow
    from demur.data.rows import is_text as is_text
    from demur.data.rows import question_answer as question_answer
    from demur.data.rows import row_texts as row_texts
    from demur.data.rows import rows_hash as rows_hash
    from demur.data.safe_eraser import safe_eraser_split as safe_eraser_split
    from demur.data.splits import find_overlap as find_overlap
    from demur.data.splits import require_disjoint as require_disjoint
    from demur.data.tofu import tofu_split as tofu_split
    from demur.data.wmdp import read_choices as read_choices
    from demur.data.wmdp import wmdp_set as wmdp_set
    from demur.data.writers import write_rows as write_rows

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "ABSTENTIONS": "abstentions",
        "Batch": "batch",
        "ChoiceRow": "rows",
        "Encoded": "batch",
        "Example": "rows",
        "Message": "rows",
        "Prompt": "rows",
        "TofuRow": "rows",
        "check_rows": "readers",
        "collate": "batch",
        "completion_rows": "muse",
        "dataset_from_rows": "columns",
        "find_overlap": "splits",
        "is_text": "rows",
        "muse_split": "muse",
        "question_answer": "rows",
        "read_choices": "wmdp",
        "read_lines": "readers",
        "read_rows": "readers",
        "require_disjoint": "splits",
        "row_texts": "rows",
        "rows_hash": "rows",
        "safe_eraser_split": "safe_eraser",
        "tofu_split": "tofu",
        "write_rows": "writers",
        "wmdp_set": "wmdp",
        "write_muse": "muse",
    },
)
