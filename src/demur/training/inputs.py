"""The rows of a run, read, checked and encoded by role."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from datasets import Dataset

from demur.data.batch import Encoded
from demur.data.readers import read_rows
from demur.data.rows import is_text, question_answer
from demur.errors import UsageError
from demur.models.chat import encode
from demur.models.completion import encode_rows
from demur.models.language_model import LanguageModel
from demur.training.settings import ForgetSettings, TrainSettings

__all__ = ["PREFERENCE_ROLES", "encode_all", "encode_preferences", "read_answers"]

PREFERENCE_ROLES = ("chosen", "rejected", "mismatched")
"""Batches that preference losses read: the two answers of a pair, and another row's answer to the same prompt."""


@contextlib.contextmanager
def _naming(source: str) -> Iterator[None]:
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{source}: {error}") from error


def read_answers(source: str) -> Dataset:
    """Rows to learn or to forget: prompts with answers, or raw texts.

    Raises:
        UsageError: they are neither.
    """
    rows = read_rows(source)
    if not is_text(rows):
        with _naming(source):
            question_answer(rows)
    return rows


def encode_all(
    lm: LanguageModel, rows: Mapping[str, Dataset], settings: ForgetSettings | TrainSettings
) -> dict[str, list[Encoded]]:
    """The tokens of each role's rows.

    Raises:
        UsageError: rows do not fit the model; the message names their source.
    """
    out = {}
    for role, table in rows.items():
        with _naming(getattr(settings, role)):
            out[role] = encode_rows(lm, table, settings.chunk_length)
    return out


def encode_preferences(
    lm: LanguageModel, rows: Dataset, source: str, roles: Sequence[str], seed: int
) -> dict[str, list[Encoded]]:
    """The tokens of preference pairs, by role.

    Args:
        lm: the model that reads them.
        rows: `prompt`, `chosen` and `rejected`.
        source: where they were read from, for messages.
        roles: of `PREFERENCE_ROLES`. The answer of role `mismatched` is the chosen one of another row.
        seed: decides which other row.

    Raises:
        UsageError: a column is missing, or there is no other row.
    """
    missing = {"chosen", "rejected", "prompt"} - set(rows.column_names)
    if missing:
        raise UsageError(f"{source} lacks the columns {', '.join(sorted(missing))}")
    answers = {"chosen": rows["chosen"][:], "rejected": rows["rejected"][:]}
    if "mismatched" in roles:
        if len(rows) < 2:
            raise UsageError(f"{source} has one row only: there is no other answer to compare with")
        # Each row of a shuffled ring takes the answer of the one before it, so none keeps its own.
        ring = np.random.default_rng([seed, 3]).permutation(len(rows))
        before = dict(zip(ring.tolist(), np.roll(ring, 1).tolist(), strict=True))
        answers["mismatched"] = [answers["chosen"][before[i]] for i in range(len(rows))]
    with _naming(source):
        return {role: encode(lm, rows["prompt"][:], answers[role], rows["id"][:]) for role in roles}
