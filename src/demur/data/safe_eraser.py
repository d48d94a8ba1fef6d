"""SafeEraser's files as rows: forget, retain and decoupled, each with its picture (Chen et al. 2025, arXiv 2502.12520).

A record of `all_train.json` or `all_val.json` has an image with questions that must not be answered beside it, a
harmless image beside which the same questions have a normal answer, and harmless questions about the first image.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from demur.data.columns import dataset_from_rows
from demur.data.formats import parse_json
from demur.errors import RowError, UnknownNameError, UsageError
from demur.registry import nearest

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["SAFE_ERASER_SPLITS", "safe_eraser_source", "safe_eraser_split"]

SAFE_ERASER_SPLITS = {
    "forget": ("all_train.json", "unsafe"),
    "retain": ("all_train.json", "harmless"),
    "decoupled": ("all_train.json", "decoupled"),
    "unseen": ("all_val.json", "unsafe"),
    "benign": ("all_val.json", "decoupled"),
    "harmless": ("all_val.json", "harmless"),
}
"""Split → its file, and which of a record's pairs it takes."""

_HARMLESS = ("UnharmPair_text1", "UnharmPair_text2", "UnharmPair_image1", "UnharmPair_image2")


def safe_eraser_source(name: str) -> Dataset:
    """Rows for a name like `FOLDER:forget`, as `read_rows("safe-eraser:FOLDER:forget")` asks for them.

    Raises:
        UsageError: the name has no folder or split, or the folder lacks the file.
        RowError: a record is broken.
    """
    folder, colon, split = name.rpartition(":")
    if not colon:
        folder, split = name, ""
    if split not in SAFE_ERASER_SPLITS:
        hint = nearest(split, SAFE_ERASER_SPLITS)
        raise UnknownNameError(
            f"safe-eraser:{name} names no split of SafeEraser: write safe-eraser:FOLDER:SPLIT; {hint}"
        )
    return safe_eraser_split(folder, split)


def safe_eraser_split(folder: str | Path, split: str) -> Dataset:
    """Rows of one kind, with the columns `id`, `question`, `answer`, `image_path`, `category` and `split`.

    A decoupled row has the id of the forget row whose question it repeats. Texts are kept as they are; the authors'
    code puts all but their first letter in lower case.

    Args:
        folder: holds `all_train.json` and `all_val.json`; paths of images are meant from it, from the folder above it,
            or from where the command runs, whichever has the file.
        split: one of `SAFE_ERASER_SPLITS`.

    Raises:
        UsageError: the folder lacks the file, or the file holds no such pairs.
        RowError: a record lacks a field or an image; the message names the file, the line and the field.
    """
    name, kind = SAFE_ERASER_SPLITS[split]
    file = Path(folder).expanduser() / name
    try:
        parsed = parse_json(file.read_bytes(), str(file))
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror or error}; it must be one of SafeEraser's") from error
    rows = []
    for number, (record, line) in enumerate(zip(parsed.rows, parsed.lines, strict=True)):
        column = "SDImage_path" if kind == "decoupled" else "image_path"
        image = _image(record, column, file, line)
        category = Path(str(record.get("image_path", ""))).parent.name
        for key, question, answer in _pairs(record, kind, file, line):
            rows.append(
                {
                    "id": f"{number}-{key}",
                    "question": question,
                    "answer": answer,
                    "image_path": image,
                    "category": category,
                    "split": split,
                }
            )
    if not rows:
        raise UsageError(f"{file} holds no {kind} pairs")
    return dataset_from_rows(rows)


def _pairs(record: dict[str, Any], kind: str, file: Path, line: int) -> list[tuple[str, str, str]]:
    """Key, question and answer of a record's pairs of one kind."""
    if kind == "harmless":
        found = [(key.removeprefix("UnharmPair_"), record[key]) for key in _HARMLESS if key in record]
        fields = ("Question", "Prediction")
    else:
        pairs = record.get("unsafe_pairs")
        if not isinstance(pairs, list):
            raise RowError(str(file), line, "unsafe_pairs", "is missing or no list of questions with answers")
        found = [(str(i), pair) for i, pair in enumerate(pairs)]
        fields = ("question", "sd_response" if kind == "decoupled" else "model_response")
    out = []
    for key, pair in found:
        texts = [pair.get(field) if isinstance(pair, dict) else None for field in fields]
        for field, text in zip(fields, texts, strict=True):
            if not isinstance(text, str) or not text.strip():
                raise RowError(str(file), line, field, f"pair {key!r} has none: it must be text")
        out.append((key, str(texts[0]), str(texts[1])))
    return out


def _image(record: dict[str, Any], column: str, file: Path, line: int) -> str:
    value = record.get(column)
    if not isinstance(value, str) or not value.strip():
        problem = "is missing: every record needs the harmless image that its questions are decoupled with"
        raise RowError(str(file), line, column, problem if column == "SDImage_path" else "is missing or no text")
    for base in (file.parent, file.parent.parent, Path()):
        if (base / value).is_file():
            return str(base / value)
    raise RowError(str(file), line, column, f"there is no image {value} in {file.parent}, above it or here")
