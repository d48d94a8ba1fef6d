"""The answers that are taught instead of those to forget: templates for any row, or each row's own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from demur.data.batch import Encoded
from demur.data.readers import read_rows
from demur.data.rows import question_answer
from demur.errors import RowError, UsageError
from demur.models.alternates import alternate_answers
from demur.models.chat import encode
from demur.models.language_model import LanguageModel
from demur.models.local_engine import LocalEngine
from demur.training.progress import progress_bar

__all__ = ["ALTERNATES", "Maker", "cycled_alternates", "drawn_alternates", "own_alternates"]

ALTERNATES = "alternates.jsonl"
"""File of a run folder with the forget rows and the answers that the run's model made up for them."""

Maker = Callable[[NDArray[np.int64]], tuple[list[Encoded], NDArray[np.int64]]]
"""From the (epochs, items) forget rows to the table of alternates and the indices into it."""


def drawn_alternates(lm: LanguageModel, rows: Dataset, answers: Sequence[str], seed: int) -> Maker:
    """For every visit of a forget row an answer drawn anew from one list for all rows."""
    for answer in answers:
        if not lm.tokenizer(answer, add_special_tokens=False)["input_ids"]:
            problem = f"the tokenizer of {lm.name} makes nothing of the answer {answer!r}"
            raise UsageError(f"{problem}: take it out of --alternates")

    def make(order: NDArray[np.int64]) -> tuple[list[Encoded], NDArray[np.int64]]:
        draws = np.random.default_rng([seed, 1]).integers(len(answers), size=order.shape)
        return _paired(lm, rows, [answers] * len(rows), order, draws)

    return make


def cycled_alternates(lm: LanguageModel, rows: Dataset, answers: Sequence[Sequence[str]], seed: int) -> Maker:
    """For every visit of a forget row the next of its own answers, in a shuffled order that repeats."""

    def make(order: NDArray[np.int64]) -> tuple[list[Encoded], NDArray[np.int64]]:
        generator = np.random.default_rng([seed, 1])
        shuffled = [generator.permutation(len(own)) for own in answers]
        visits: Counter[int] = Counter()
        choice = np.empty_like(order)
        for place, row in np.ndenumerate(order):
            choice[place] = shuffled[row][visits[row] % len(shuffled[row])]
            visits[row] += 1
        return _paired(lm, rows, answers, order, choice)

    return make


def own_alternates(lm: LanguageModel, rows: Dataset, source: str, made: Path, seed: int) -> tuple[Dataset, bool]:
    """The rows with a column `alternates`: their own, those that an earlier start of this run made, or new ones.

    Args:
        lm: the run's model, which makes them up where there are none.
        rows: the forget rows.
        source: what messages call them.
        made: where an earlier start of the run left them.
        seed: decides what is made up.

    Returns:
        The rows, and whether their alternates are new.

    Raises:
        RowError: a row's alternates are no list of texts.
        UsageError: the model's own answers are of no use.
    """
    if "alternates" in rows.column_names:
        for line, texts in enumerate(rows["alternates"], start=1):
            listed = isinstance(texts, list) and texts
            if not listed or not all(isinstance(text, str) and text.strip() for text in texts):
                raise RowError(source, line, "alternates", "must be a list of at least one text, none of them empty")
        return rows, False
    if made.is_file():
        return read_rows(str(made)), False
    with progress_bar() as bar:
        task = bar.add_task(f"other answers by {lm.name}", total=None, note="")
        try:
            found = alternate_answers(
                LocalEngine(lm),
                rows,
                seed=seed,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
        except UsageError as error:
            hint = "or give the rows a column 'alternates' (demur data alternates)"
            raise UsageError(f"{source}: other answers cannot be made up: {error}, {hint}") from error
    return found, True


def _paired(
    lm: LanguageModel,
    rows: Dataset,
    answers: Sequence[Sequence[str]],
    order: NDArray[np.int64],
    choice: NDArray[np.int64],
) -> tuple[list[Encoded], NDArray[np.int64]]:
    """Encode the pairs of a row and one of its answers that occur, and say which one each visit meets."""
    most = max(map(len, answers))
    pairs, place = np.unique(order * most + choice, return_inverse=True)
    forget, chosen = np.divmod(pairs, most)
    prompts, _ = question_answer(rows)
    ids = rows["id"][:]
    table = encode(
        lm,
        [prompts[i] for i in forget],
        [answers[i][j] for i, j in zip(forget, chosen, strict=True)],
        [f"{ids[i]}+alternate {j}" for i, j in zip(forget, chosen, strict=True)],
    )
    return table, place.reshape(order.shape).astype(np.int64)
