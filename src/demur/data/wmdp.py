"""WMDP, questions about hazardous knowledge and the texts to unlearn it with (Li et al. 2024, arXiv 2403.03218).

The questions have four options each: 1273 about biology, 408 about chemistry, 1987 about cybersecurity.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from demur.data.columns import dataset_from_rows
from demur.data.readers import check_rows, read_lines, read_rows
from demur.data.rows import ChoiceRow, iterate
from demur.errors import UnknownNameError, UsageError
from demur.registry import nearest

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["CORPORA", "SUBSETS", "read_choices", "wmdp_set"]

SUBSETS = ("bio", "chem", "cyber")
"""The sets of questions; on the hub the configurations `wmdp-bio` … of `cais/wmdp`."""

CORPORA = ("bio-forget-corpus", "bio-retain-corpus", "cyber-forget-corpus", "cyber-retain-corpus")
"""The texts to forget and to keep."""

_ENDINGS = (".jsonl", ".jsonl.gz", ".json", ".parquet", ".csv")


def wmdp_source(name: str) -> Dataset:
    """What `wmdp:NAME` means to `read_rows`: a set of `wmdp_set`, from `wmdp` in `$DEMUR_SHARED_DATA` or the hub."""
    shared = os.environ.get("DEMUR_SHARED_DATA")
    folder = Path(shared) / "wmdp" if shared else None
    return wmdp_set(folder if folder and folder.is_dir() else None, name)


def wmdp_set(folder: str | os.PathLike[str] | None, name: str) -> Dataset:
    """Questions or texts of the benchmark.

    Args:
        folder: holds `wmdp-bio.jsonl` … and `bio-forget-corpus.jsonl` … (or `wmdp-corpora/bio-forget-corpus.jsonl`);
            None takes them from the hub.
        name: of `SUBSETS` for questions (columns question, choices, answer), of `CORPORA` for texts (column text).
            With `:lines` after it a corpus is read as open-unlearning reads it: every line of the file, JSON and all,
            is one text.

    Raises:
        UnknownNameError: there is no such set.
        UsageError: the file is not there.
        RowError: a row is broken.
    """
    base, _, lines = name.partition(":")
    if base not in (*SUBSETS, *CORPORA) or lines not in ("", "lines") or (lines and base in SUBSETS):
        raise UnknownNameError(f"WMDP has no set {name!r}: {nearest(name, (*SUBSETS, *CORPORA))}")
    if base in SUBSETS:
        file = _file(folder, f"wmdp-{base}")
        return read_choices(file) if file else read_choices(f"cais/wmdp:wmdp-{base}", split="test")
    file = _file(folder, base)
    if lines:
        if file is None or ".jsonl" not in file.name:
            raise UsageError(f"wmdp:{name} reads the lines of {base}.jsonl: put it into $DEMUR_SHARED_DATA/wmdp")
        return check_rows(dataset_from_rows([{"text": line} for line in read_lines(file)]), name=str(file))
    if file is not None:
        return read_rows(file, required=("text",))
    return read_rows(
        "cais/wmdp-bio-forget-corpus" if base == CORPORA[0] else f"cais/wmdp-corpora:{base}", required=("text",)
    )


def _file(folder: str | os.PathLike[str] | None, stem: str) -> Path | None:
    if folder is None:
        return None
    places = [Path(folder), Path(folder) / "wmdp-corpora"]
    found = [place / f"{stem}{ending}" for place in places for ending in _ENDINGS]
    for file in found:
        if file.is_file():
            return file
    raise UsageError(f"{folder} has no {stem}.jsonl")


def read_choices(source: str | os.PathLike[str], split: str | None = None) -> Dataset:
    """Questions with four options from any row source.

    Args:
        source: as for `read_rows`; columns question, choices (four texts) and answer (0 to 3, or A to D).
        split: as for `read_rows`.

    Returns:
        The rows, with whole numbers as answers.

    Raises:
        UsageError: the source cannot be read.
        RowError: a column is missing, the number of choices is wrong, or the answer is none of them.
    """
    rows = read_rows(source, required=("question", "choices", "answer"), split=split)
    answers = [ChoiceRow.model_validate(row).answer for row in iterate(rows)]
    return rows.remove_columns("answer").add_column("answer", answers)
