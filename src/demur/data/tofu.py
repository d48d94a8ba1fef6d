"""The splits of TOFU, the benchmark of fictitious authors (Maini et al. 2024, arXiv 2401.06121).

200 authors with 20 questions each, author after author. A forget split is the last authors, a retain split the first
ones, so that every split is cut from five files: `full`, `forget10_perturbed`, `retain_perturbed`,
`real_authors_perturbed` and `world_facts_perturbed`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from demur.data.readers import read_rows
from demur.errors import UnknownNameError, UsageError
from demur.registry import nearest

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["HUB_NAME", "tofu_folder", "tofu_split"]

HUB_NAME = "locuslab/TOFU"
"""Where the benchmark lies on the hub; its configurations have the names of the splits."""

ROWS = 4000
"""Rows of the full set; one per cent of the authors is two of them, 40 rows."""

_PER_CENT = ROWS // 100
_FILES = ("full", "forget10_perturbed", "retain_perturbed", "real_authors_perturbed", "world_facts_perturbed")
_EXAMPLES = (*_FILES, "forget01", "forget05", "forget10", "retain90", "retain95", "retain99", "holdout10")
_ENDINGS = (".jsonl.gz", ".jsonl", ".json.gz", ".json", ".parquet", ".csv.gz", ".csv")


def tofu_folder() -> Path | None:
    """The folder `tofu` in `$DEMUR_SHARED_DATA`, or None where there is none and the hub is to be asked."""
    shared = os.environ.get("DEMUR_SHARED_DATA")
    folder = Path(shared) / "tofu" if shared else None
    return folder if folder and folder.is_dir() else None


def tofu_source(name: str) -> Dataset:
    """The split called `name`, from `tofu_folder` or the hub: what `tofu:NAME` means to `read_rows`."""
    return tofu_split(tofu_folder(), name)


def tofu_split(folder: str | os.PathLike[str] | None, name: str) -> Dataset:
    """One split of the benchmark.

    The rows of the fictitious authors have as `id` their number in the full set, so that a question has the same id in
    `full`, `forgetNN`, `retainNN` and their perturbed versions.

    Args:
        folder: holds the benchmark's files (`full.jsonl.gz`, `forget10_perturbed.jsonl.gz` …, in any format that
            `read_rows` knows); None takes them from the hub.
        name: `full`; `forgetNN`, the last NN per cent of the authors; `retainNN`, the first NN per cent;
            `forgetNN_perturbed` (NN ≤ 10), `retain_perturbed` (the first 400 rows), `real_authors_perturbed`,
            `world_facts_perturbed`; or any other file of the folder or configuration of the hub, such as `holdout10`.

    Raises:
        UnknownNameError: there is no such split.
        UsageError: the folder lacks a file, or a file does not have the benchmark's number of rows.
        RowError: a row is broken.
    """
    match = re.fullmatch(r"(forget|retain)(\d\d)(_perturbed)?", name)
    if match is None or (match[1] == "retain" and match[3]):
        return _number(_read(folder, name), 0)
    kind, count = match[1], _PER_CENT * int(match[2])
    if not count:
        raise UsageError(f"the TOFU split {name} has no rows: NN runs from 01 to 99")
    if not match[3]:
        full = _number(_read(folder, "full"), 0)
        if len(full) != ROWS:
            raise UsageError(f"TOFU's full set has {ROWS} rows, the one in {folder or HUB_NAME} has {len(full)}")
        return full.select(range(ROWS - count, ROWS) if kind == "forget" else range(count))
    perturbed = _read(folder, "forget10_perturbed")
    if count > len(perturbed):
        raise UsageError(f"TOFU has perturbed answers for its last {len(perturbed)} rows only, {name} needs {count}")
    return _number(perturbed, ROWS - len(perturbed)).select(range(len(perturbed) - count, len(perturbed)))


def _read(folder: str | os.PathLike[str] | None, name: str) -> Dataset:
    required = ("question", "answer", *(("perturbed_answer",) if name.endswith("_perturbed") else ()))
    if folder is None:
        return read_rows(f"{HUB_NAME}:{name}", required=required)
    for ending in _ENDINGS:
        file = Path(folder).expanduser() / f"{name}{ending}"
        if file.is_file():
            return read_rows(file, required=required)
    if name in _FILES:
        raise UsageError(f"{folder} does not hold TOFU: it has no {name}.jsonl")
    if name.startswith("holdout"):
        raise UsageError(f"{folder} has no {name}: the hold-out splits are on the hub only, as {HUB_NAME}:{name}")
    raise UnknownNameError(f"unknown TOFU split {name!r}: {nearest(name, _EXAMPLES)}")


def _number(dataset: Dataset, first: int) -> Dataset:
    ids = [str(row) for row in range(first, first + len(dataset))]
    return dataset.remove_columns("id").add_column("id", ids)
