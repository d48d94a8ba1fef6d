"""Decoupled rows: the question of a forget row with another picture and a normal answer (SafeEraser, 2502.12520)."""

from __future__ import annotations

from datasets import Dataset

from demur.data.rows import Prompt, image_paths, question_answer
from demur.errors import RowError, UsageError

__all__ = ["decouple_weight", "pair_decoupled"]


def decouple_weight(source: str | None, weight: float | None) -> float:
    """The weight of the decoupled rows' loss: 1 unless another is asked for, 0 without such rows.

    Raises:
        UsageError: there is a weight and there are no rows.
    """
    if source is None:
        if weight:
            raise UsageError("--decouple-weight weighs decoupled rows: pass --decoupled, or leave the weight out")
        return 0.0
    return 1.0 if weight is None else weight


def pair_decoupled(forget: Dataset, decoupled: Dataset, source: str) -> Dataset:
    """The decoupled rows in the order of the forget rows that they belong to, found by their ids.

    Args:
        forget: rows to forget.
        decoupled: for each of them a row with the same id and question; there may be more.
        source: what errors call the decoupled rows.

    Raises:
        RowError: a forget row has no decoupled row, or one with another question or without a picture.
    """
    place = {name: i for i, name in enumerate(decoupled["id"][:])}
    asked, _ = question_answer(forget)
    others, _ = question_answer(decoupled)
    chosen = []
    for name, prompt in zip(forget["id"][:], asked, strict=True):
        if name not in place:
            raise RowError(source, None, "id", f"no decoupled row has the id {name!r} of a forget row: add one")
        row = place[name]
        if _text(others[row]) != _text(prompt):
            problem = f"row {name!r} asks something else than the forget row of that id: it must be the same question"
            raise RowError(source, row + 1, "question", problem)
        if image_paths(prompt) and not image_paths(others[row]):
            problem = f"row {name!r} has no picture, and the forget row of that id has one: give it a harmless one"
            raise RowError(source, row + 1, "image_path", problem)
        chosen.append(row)
    return decoupled.select(chosen)


def _text(prompt: Prompt) -> list[str]:
    """What a prompt says, without its pictures."""
    contents = [prompt] if isinstance(prompt, str) else [m["content"] for m in prompt]
    parts = [[{"type": "text", "text": c}] if isinstance(c, str) else c for c in contents]
    return [part["text"] for content in parts for part in content if part["type"] == "text"]
