"""R-Tuning: rows that teach a model to say whether it knows (Zhang et al. 2024, arXiv 2311.09677, section 3).

The questions are split by what the model knows before it is tuned, either by whether its own answer holds the true one
or, without labels, by the entropy of several sampled answers. The rows of the two halves are then written differently.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from demur.data.abstentions import ABSTENTIONS
from demur.data.rows import question_answer
from demur.errors import UsageError

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = [
    "CERTAINTY_QUESTION",
    "CERTAINTY_WORDS",
    "KnowledgeSplit",
    "answer_entropy",
    "certainty_front",
    "holds_answer",
    "r_tuning_rows",
    "split_by_entropy",
    "split_by_knowledge",
]

Match = Callable[[str, str], bool]
"""Called with what was said and the true answer: does it hold the answer?"""

CERTAINTY_QUESTION = "Are you sure you accurately answered the question based on your internal knowledge?"
CERTAINTY_WORDS = ("sure", "unsure")


@dataclass(frozen=True)
class KnowledgeSplit:
    """Which questions a model knows.

    Attributes:
        known: one truth value a row.
        ties: rows whose entropy is the one at which the halves part, where it lies on both sides; which of these went
            where is no more than their order.
    """

    known: tuple[bool, ...]
    ties: int = 0


def holds_answer(said: str, answer: str) -> bool:
    """Whether a text holds an answer, whatever the case, the punctuation and the spacing."""
    return _plain(answer) in _plain(said)


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


def split_by_knowledge(rows: Dataset, predictions: Sequence[str], match: Match = holds_answer) -> KnowledgeSplit:
    """The supervised split: known is what the model answers correctly before it is tuned.

    Args:
        rows: questions with their answers.
        predictions: the model's own greedy answer to each, in the format in which it is going to be tuned.
        match: whether a prediction holds the answer.

    Raises:
        UsageError: there are no rows, or not one prediction a row.
    """
    _, answers = question_answer(rows)
    _check(answers, len(predictions), "predictions")
    return KnowledgeSplit(tuple(match(said, answer) for said, answer in zip(predictions, answers, strict=True)))


def answer_entropy(samples: Sequence[str]) -> float:
    """Entropy -Σ p ln p of the distinct texts among sampled answers, in nats.

    Raises:
        UsageError: there is no sample.
    """
    if not samples:
        raise UsageError("an entropy needs at least one sampled answer")
    # From the counts in order, so that equal counts give equal bits, and ties can be seen.
    counts = sorted(Counter(samples).values())
    return math.fsum(-n / len(samples) * math.log(n / len(samples)) for n in counts if n < len(samples))


def split_by_entropy(samples: Sequence[Sequence[str]]) -> KnowledgeSplit:
    """The split without labels: the half of the questions whose sampled answers agree most counts as known.

    Args:
        samples: several sampled answers a row.

    Returns:
        The floor(n / 2) rows with the lowest entropy are known; ties are broken by the rows' order and counted.

    Raises:
        UsageError: there are no rows, or one has no sample.
    """
    _check(samples, len(samples), "samples")
    entropies = [answer_entropy(answers) for answers in samples]
    order = sorted(range(len(entropies)), key=entropies.__getitem__)
    half = len(order) // 2
    sure = set(order[:half])
    ties = 0
    if half and entropies[order[half - 1]] == entropies[order[half]]:
        ties = entropies.count(entropies[order[half]])
    return KnowledgeSplit(tuple(row in sure for row in range(len(order))), ties)


def certainty_front(answer: str, question: str = CERTAINTY_QUESTION) -> str:
    """An answer with the question for its certainty, up to where "sure" or "unsure" is to follow."""
    return f"{_sentence(answer)} {question} I am"


def _sentence(answer: str) -> str:
    answer = answer.strip()
    return answer if answer.endswith((".", "!", "?", "…")) else f"{answer}."


def r_tuning_rows(
    rows: Dataset,
    split: KnowledgeSplit,
    variant: Literal["certainty", "replace"] = "certainty",
    *,
    mask_unknown_answers: bool = False,
    seed: int = 0,
) -> Dataset:
    """The rows to train on.

    Args:
        rows: questions with their answers.
        split: which of them the model knows.
        variant: "certainty" keeps every answer and adds the question for certainty and whether the model is sure of
            it (R-Tuning, and R-Tuning-U with a split by entropy); "replace" puts an admission of ignorance in the
            place of the answers that it does not know (R-Tuning-R).
        mask_unknown_answers: with "certainty", let the model read the answers that it does not know without learning
            to say them: they go into the column `prefill`. Not in the paper.
        seed: decides the admissions.

    Returns:
        The rows with their answers rewritten. Where everything is known, "replace" leaves them as they are.

    Raises:
        UsageError: the split is of other rows, or an option is out of range.
    """
    if variant not in ("certainty", "replace"):
        raise UsageError(f"variant must be certainty or replace, not {variant!r}")
    if mask_unknown_answers and variant == "replace":
        raise UsageError("mask_unknown_answers does nothing with variant replace, which drops unknown answers")
    _, answers = question_answer(rows)
    _check(answers, len(split.known), "truth values in the split")
    column = "answer" if "answer" in rows.column_names else "response"
    if variant == "replace":
        draws = random.Random(seed)
        replaced = [a if k else draws.choice(ABSTENTIONS) for a, k in zip(answers, split.known, strict=True)]
        return _with_column(rows, column, replaced)
    sure, unsure = CERTAINTY_WORDS
    said = [f"{certainty_front(a)} {sure if k else unsure}." for a, k in zip(answers, split.known, strict=True)]
    if not mask_unknown_answers:
        return _with_column(rows, column, said)
    read = ["" if known else _sentence(answer) for answer, known in zip(answers, split.known, strict=True)]
    labels = [text[len(front) :] for text, front in zip(said, read, strict=True)]
    return _with_column(_with_column(rows, column, labels), "prefill", read)


def _with_column(rows: Dataset, name: str, values: Sequence[str]) -> Dataset:
    from datasets import Value

    order = [*rows.column_names, *({name} - set(rows.column_names))]
    kept = rows.remove_columns([name]) if name in rows.column_names else rows
    return kept.add_column(name, list(values), feature=Value("string")).select_columns(order)


def _check(rows: Sequence[object], count: int, what: str) -> None:
    if not rows:
        raise UsageError("there are no questions to split: give at least one row")
    if len(rows) != count:
        raise UsageError(f"{len(rows)} rows but {count} {what}")
