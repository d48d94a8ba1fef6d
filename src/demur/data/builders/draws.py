"""Answers drawn for queries, kept in a file that only grows: a sampling that was killed goes on where it stopped."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from demur.data.builders.journal import Journal, open_journal
from demur.errors import UsageError

__all__ = ["Draws", "draw", "open_draws", "round_seed"]

_FORMAT = 1
Answers = Sequence[str]


class Draws:
    """Answers by purpose, query and number of the trial; in memory, or in a journal besides.

    Args:
        journal: where new answers are kept; None keeps nothing.
        known: what it held.
    """

    def __init__(
        self, journal: Journal | None = None, known: Mapping[tuple[str, int, int], list[str]] | None = None
    ) -> None:
        self._journal, self._known = journal, dict(known or {})

    def find(self, purpose: str, query: int, first: int, count: int) -> list[str] | None:
        """The answers of trials `first` to `first + count - 1` of a query; None where they were not drawn."""
        found = self._known.get((purpose, query, first))
        return found if found is not None and len(found) == count else None

    def add(self, purpose: str, seed: int, first: Mapping[int, int], answers: Mapping[int, list[str]]) -> None:
        """Keep the answers of one call of the sampler, a line a query.

        Args:
            purpose: what they are for.
            seed: that they were drawn with.
            first: query → number of its first trial among these.
            answers: query → its answers.
        """
        for query, drawn in answers.items():
            self._known[purpose, query, first[query]] = drawn
        if self._journal is not None:
            self._journal.add(
                {"for": purpose, "query": query, "trial": first[query], "seed": seed, "answers": drawn}
                for query, drawn in answers.items()
            )


@contextlib.contextmanager
def open_draws(path: str | os.PathLike[str] | None, facts: Mapping[str, Any]) -> Iterator[Draws]:
    """Open a file of draws, or begin one; what a killed process left half written at its end is cut off.

    Args:
        path: None keeps the draws in memory only.
        facts: what the answers depend on besides query and trial (model, rows, temperature, seed …), as JSON.

    Raises:
        UsageError: the file was made with other facts, is damaged, cannot be written, or is in use.
    """
    if path is None:
        yield Draws()
        return
    with open_journal(path, {"format": _FORMAT, **facts}) as journal:
        known = {}
        for number, line in enumerate(journal.lines, start=2):
            try:
                known[str(line["for"]), int(line["query"]), int(line["trial"])] = [str(a) for a in line["answers"]]
            except (ValueError, KeyError, TypeError):
                raise UsageError(f"{path}, line {number}: not a line of draws: remove the file to draw anew") from None
        yield Draws(journal, known)


def round_seed(seed: int, purpose: str, number: int) -> int:
    """The sampler's seed in one round; the same for all queries, whose answers differ by their prompts."""
    text = f"{seed} {purpose} {number}".encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:4]) >> 1


def draw(
    sampler: Callable[[Sequence[Any], int], Answers],
    prompts: Sequence[Any],
    wanted: Mapping[int, tuple[int, int]],
    *,
    purpose: str,
    seed: int,
    draws: Draws,
    chunk: int,
    done: Callable[[int, list[str]], None],
) -> None:
    """One round: some answers for each of some queries, asked for together.

    Args:
        sampler: see `dart.Sampler`.
        prompts: of all queries.
        wanted: query → number of its first trial in this round, and how many.
        purpose, seed: of the round.
        draws: where known answers are found and new ones kept.
        chunk: answers asked for in one call; a query's are never divided, so that its draws do not depend on it.
        done: called with each query and its answers.

    Raises:
        UsageError: the sampler gave another number of answers than it was asked for.
    """
    missing: list[int] = []
    asked = 0
    for query, (first, count) in wanted.items():
        found = draws.find(purpose, query, first, count)
        if found is not None:
            done(query, found)
            continue
        missing.append(query)
        asked += count
        if asked >= chunk:
            _ask(sampler, prompts, missing, wanted, purpose, seed, draws, done)
            missing, asked = [], 0
    if missing:
        _ask(sampler, prompts, missing, wanted, purpose, seed, draws, done)


def _ask(
    sampler: Callable[[Sequence[Any], int], Answers],
    prompts: Sequence[Any],
    queries: Sequence[int],
    wanted: Mapping[int, tuple[int, int]],
    purpose: str,
    seed: int,
    draws: Draws,
    done: Callable[[int, list[str]], None],
) -> None:
    entries = [prompts[query] for query in queries for _ in range(wanted[query][1])]
    given = iter(answers := list(sampler(entries, seed)))
    if len(answers) != len(entries):
        raise UsageError(f"the sampler gave {len(answers)} answers to {len(entries)} prompts: it must give one to each")
    drawn = {query: [next(given) for _ in range(wanted[query][1])] for query in queries}
    draws.add(purpose, seed, {query: wanted[query][0] for query in queries}, drawn)
    for query, own in drawn.items():
        done(query, own)
