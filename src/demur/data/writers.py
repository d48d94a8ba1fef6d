"""Rows back to a file."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from demur.data.rows import iterate
from demur.files import atomic_write

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["write_rows"]


def write_rows(file: str | os.PathLike[str], rows: Dataset) -> None:
    """Write rows as JSON lines, whole or not at all; columns that a row leaves empty are left out of it.

    Args:
        file: where to.
        rows: what `read_rows` gave, or any data set of plain values.
    """
    with atomic_write(file) as temporary, temporary.open("w", encoding="utf-8") as lines:
        for row in iterate(rows):
            kept = {name: value for name, value in row.items() if value is not None}
            lines.write(json.dumps(kept, ensure_ascii=False) + "\n")
