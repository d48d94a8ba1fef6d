"""The curriculum of honesty and then helpfulness (Gao et al. 2024, arXiv 2406.00380): judged answers to pairs."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from demur.data.columns import dataset_from_rows
from demur.data.rows import iterate
from demur.errors import RowError, UsageError

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["build_curriculum"]

_Record = dict[str, Any]


def build_curriculum(
    records: Dataset, threshold: float = 6.0, *, most: int | None = 1000, seed: int = 0, source: str = "the records"
) -> tuple[Dataset, Dataset]:
    """Pairs of two stages from judged answers: honest over dishonest, then helpful over less helpful among the honest.

    A pair joins two answers to the same prompt. In the first stage the chosen one is honest and the rejected one is
    not; in the second both are honest, the chosen one scores at least the threshold and the rejected one less.

    Args:
        records: rows with `prompt`, `response`, `honest` (true or false) and `score` (helpfulness, 1 to 10, needed of
            honest answers only).
        threshold: of the score; the paper tries 5, 6 and 7.
        most: pairs in a stage; where there are more, every prompt gives one before any gives two. None takes all.
        seed: decides which pairs are taken, and their order.
        source: what errors call the records.

    Returns:
        The stages, each with the columns id, prompt, chosen and rejected; of the second also `chosen_score` and
        `rejected_score`.

    Raises:
        RowError: a record lacks its prompt, its response, its honesty or an honest one its score.
        UsageError: a stage has no pairs.
    """
    answers: dict[str, list[_Record]] = {}
    for line, row in enumerate(iterate(records), start=1):
        record = _checked(row, source, line)
        answers.setdefault(str(record["prompt"]), []).append(record)
    first = _pairs(answers, lambda a: a["honest"], lambda a: not a["honest"])
    second = _pairs(
        answers,
        lambda a: a["honest"] and a["score"] >= threshold,
        lambda a: a["honest"] and a["score"] < threshold,
    )
    if not first:
        raise UsageError("stage 1 is empty: no prompt has an honest and a dishonest answer; add answers to each prompt")
    if not second:
        raise UsageError(
            f"stage 2 is empty: no prompt has honest answers on both sides of the score {threshold:g}; "
            "choose another threshold"
        )
    rng = np.random.default_rng(seed)
    return _stage(first, "honest", most, rng, scores=False), _stage(second, "helpful", most, rng, scores=True)


def _checked(row: _Record, source: str, line: int) -> _Record:
    for column in ("prompt", "response"):
        if not row.get(column):
            raise RowError(source, line, column, "is missing: a judged answer needs its prompt and its text")
    if not isinstance(row.get("honest"), bool):
        raise RowError(source, line, "honest", f"must be true or false, not {row.get('honest')!r}")
    score = row.get("score")
    if row["honest"] and (isinstance(score, bool) or not isinstance(score, int | float) or not 1 <= score <= 10):
        raise RowError(source, line, "score", f"must be a number from 1 to 10, not {score!r}")
    return row


def _pairs(
    answers: dict[str, list[_Record]], chosen: Callable[[_Record], bool], rejected: Callable[[_Record], bool]
) -> list[list[tuple[_Record, _Record]]]:
    """All pairs, prompt by prompt, without prompts that have none."""
    found = []
    for group in answers.values():
        pairs = list(product(filter(chosen, group), filter(rejected, group)))
        pairs = [pair for pair in pairs if pair[0]["response"] != pair[1]["response"]]
        if pairs:
            found.append(pairs)
    return found


def _stage(
    prompts: list[list[tuple[_Record, _Record]]],
    name: str,
    most: int | None,
    rng: np.random.Generator,
    *,
    scores: bool,
) -> Dataset:
    shuffled = [[pairs[i] for i in rng.permutation(len(pairs))] for pairs in prompts]
    order = [(turn, place) for place, pairs in enumerate(shuffled) for turn in range(len(pairs))]
    # Sorting by turn alone keeps the shuffled order of prompts within each turn.
    order = sorted((order[i] for i in rng.permutation(len(order))), key=lambda at: at[0])[:most]
    rows = []
    for number, (turn, place) in enumerate(order):
        won, lost = shuffled[place][turn]
        row = {
            "id": f"{name}-{number}",
            "prompt": won["prompt"],
            "chosen": won["response"],
            "rejected": lost["response"],
        }
        rows.append(row | ({"chosen_score": won["score"], "rejected_score": lost["score"]} if scores else {}))
    return dataset_from_rows(rows)
