"""Difficulty-aware rejection sampling (Tong et al. 2024, arXiv 2407.13690): a number of right answers for every query.

Rejection sampling with the same number of trials for all queries gives the easy ones nearly all examples and the
hardest none. Here the number of right answers is fixed beforehand, and each query is asked until it has them.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from demur.data.answer_checker import check_answer
from demur.data.builders.draws import Draws, draw, round_seed
from demur.data.columns import dataset_from_rows
from demur.data.rows import iterate, question_answer
from demur.errors import DemurError, UsageError

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = [
    "Sampler",
    "SamplingReport",
    "dars_targets",
    "difficulty_aware_sampling",
    "estimate_fail_rate",
    "known_answer",
    "vanilla_rejection_sampling",
]

Sampler = Callable[[Sequence[Any], int], Sequence[str]]
"""One answer to each of the prompts; a prompt that stands there several times is answered anew each time. The second
argument is a seed: the same prompts and seed give the same answers, whatever other prompts stand beside them."""

Checker = Callable[[str, Mapping[str, Any]], bool]
"""Whether an answer to a row is right."""

Told = Callable[[int, int, str], Any]
"""Called with steps done, steps in all, and what is going on."""

_CHUNK = 256
_NOT_COPIED = ("id", "question", "prompt", "answer", "response")


def known_answer(answer: str, row: Mapping[str, Any]) -> bool:
    """Whether an answer is the one that the row knows, as `check_answer` compares them."""
    return check_answer(answer, row["answer"] if row.get("answer") is not None else row["response"])


@dataclass(frozen=True)
class SamplingReport:
    """What sampling came to, a number a query in the order of the rows.

    Attributes:
        targets: right answers wanted.
        correct: right answers kept, at most the target.
        trials: answers looked at until the target was met or the limit reached.
        ids: the rows' names.
        drawn: answers drawn in all; a round may draw a few more than are looked at.
    """

    targets: Sequence[int]
    correct: Sequence[int]
    trials: Sequence[int]
    ids: Sequence[str]
    drawn: int

    @property
    def unmet(self) -> list[str]:
        """Queries with fewer right answers than wanted."""
        return [i for i, k, c in zip(self.ids, self.targets, self.correct, strict=True) if c < k]

    @property
    def coverage(self) -> float:
        """Share of queries with at least one right answer."""
        return sum(c > 0 for c in self.correct) / len(self.correct)

    def sentences(self) -> list[str]:
        """What a user should know, a sentence each."""
        said = [
            f"{sum(self.correct)} right answers to {len(self.ids)} queries from {sum(self.trials)} trials, "
            f"coverage {self.coverage:.3f}"
        ]
        never = [i for i, c in zip(self.ids, self.correct, strict=True) if c == 0]
        if never:
            said.append(f"{len(never)} queries have no right answer: {_some(never)}")
        short = [i for i in self.unmet if i not in set(never)]
        if short:
            said.append(f"{len(short)} queries have fewer right answers than wanted: {_some(short)}")
        return said


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (" …" if len(names) > 10 else "")


@dataclass
class _Query:
    """One query while it is sampled."""

    target: int
    trials: int = 0
    seen: int = 0
    correct: int = 0
    kept: list[tuple[int, str]] = field(default_factory=list)
    texts: set[str] = field(default_factory=set)


def estimate_fail_rate(
    sampler: Sampler,
    checker: Checker,
    queries: Dataset,
    n: int = 40,
    *,
    seed: int = 0,
    draws: Draws | None = None,
    progress: Told | None = None,
) -> list[float]:
    """Difficulty of each query: the share of wrong answers among n (arXiv 2407.13690).

    Draw at the temperature that the data will be made at. The answers are not those that become data, so that a query
    that was lucky here is not lucky twice.

    Args:
        sampler: see `Sampler`.
        checker: see `Checker`, for instance `known_answer`.
        queries: rows with a question or prompt, each once.
        n: answers to each; with fewer than 40 the rates are coarse.
        seed: of the draws.
        draws: where answers are kept.
        progress: told of the answers.

    Returns:
        One rate a row, in [0, 1].

    Raises:
        UsageError: n is below 1, or two rows ask the same.
        DemurError: the checker failed.
    """
    if n < 1:
        raise UsageError(f"a fail rate needs at least 1 answer a query, not {n}")
    rows, prompts, names = _queries(queries)
    rates = [0.0] * len(rows)
    told = [0]

    def done(query: int, answers: list[str]) -> None:
        right = sum(_right(checker, answer, rows[query], names[query]) for answer in answers)
        rates[query] = 1 - right / n
        told[0] += n
        if progress is not None:
            progress(told[0], n * len(rows), "estimating difficulty")

    draw(
        sampler,
        prompts,
        dict.fromkeys(range(len(rows)), (0, n)),
        purpose="difficulty",
        seed=round_seed(seed, "difficulty", 0),
        draws=draws or Draws(),
        chunk=_CHUNK,
        done=done,
    )
    return rates


def dars_targets(
    fail_rate: Sequence[float], strategy: str = "prop2diff", *, k: int | None = None, budget: int | None = None
) -> list[int]:
    """Right answers to collect for each query (arXiv 2407.13690).

    uniform: K = k.    prop2diff: K = max(1, ⌈k · d / max d⌉), d the fail rate.

    Args:
        fail_rate: of each query, in [0, 1].
        strategy: uniform or prop2diff.
        k: right answers for every query, or for the hardest.
        budget: right answers in all, instead of `k`; rounding up exceeds it by less than one a query.

    Returns:
        One target a query, at least 1.

    Raises:
        UsageError: the strategy is unknown, not one of k and budget is given or it is too small, or a rate is no share.
    """
    if strategy not in ("uniform", "prop2diff"):
        raise UsageError(f"unknown strategy {strategy!r}: use uniform or prop2diff")
    if (k is None) == (budget is None):
        raise UsageError("give either k, right answers a query, or budget, right answers in all")
    if not fail_rate or not all(0 <= d <= 1 for d in fail_rate):
        raise UsageError("targets need a fail rate between 0 and 1 for each query")
    if k is not None and k < 1:
        raise UsageError(f"k must be at least 1, not {k}")
    if budget is not None and budget < len(fail_rate):
        raise UsageError(f"a budget of {budget} is less than one right answer for each of {len(fail_rate)} queries")
    hardest = max(fail_rate)
    shares = [1.0] * len(fail_rate) if strategy == "uniform" or not hardest else [d / hardest for d in fail_rate]
    most = k if k is not None else (budget or 0) / sum(shares)
    # A product that is whole but for rounding is not to be rounded up.
    return [max(1, math.ceil(round(most * share, 9))) for share in shares]


def difficulty_aware_sampling(
    sampler: Sampler,
    checker: Checker,
    queries: Dataset,
    targets: Sequence[int],
    *,
    max_trials: int = 2048,
    dedup: bool = True,
    seed: int = 0,
    draws: Draws | None = None,
    progress: Told | None = None,
) -> tuple[Dataset, SamplingReport]:
    """Ask every query until it has its right answers, or was asked `max_trials` times (arXiv 2407.13690).

    All open queries are asked in rounds. How often a query is asked in a round depends on its own answers alone:
    neither the queries beside it nor the size of a call to the sampler change what is drawn for it.

    Args:
        sampler: see `Sampler`.
        checker: see `Checker`.
        queries: rows with a question or prompt, each once.
        targets: right answers wanted for each, from `dars_targets`.
        max_trials: answers to one query at most.
        dedup: an answer that says what a kept one says, but for white space, does not count.
        seed: of the draws.
        draws: where answers are kept.
        progress: told of the right answers.

    Returns:
        Rows with `prompt`, `response`, `query` (the row's id), `trial` and the row's other columns; and the report.

    Raises:
        UsageError: a target or max_trials is below 1, two rows ask the same, or no query has a right answer.
        DemurError: the checker failed.
    """
    rows, prompts, names = _queries(queries)
    if len(targets) != len(rows) or any(k < 1 for k in targets):
        raise UsageError(f"{len(rows)} queries need a target of at least 1 each")
    if max_trials < 1:
        raise UsageError(f"max_trials must be at least 1, not {max_trials}: a query that is never solved would not end")
    state = [_Query(k) for k in targets]

    def done(number: int, answers: list[str]) -> None:
        query = state[number]
        for trial, answer in enumerate(answers, start=query.trials):
            if query.correct == query.target:
                break  # the round drew a few more than it took
            query.seen += 1
            text = " ".join(answer.split())
            if (dedup and text in query.texts) or not _right(checker, answer, rows[number], names[number]):
                continue
            query.correct += 1
            query.texts.add(text)
            query.kept.append((trial, answer))
        query.trials += len(answers)
        if progress is not None:
            progress(sum(q.correct for q in state), sum(targets), "collecting right answers")

    number = 0
    while wanted := {i: (q.trials, _next_trials(q, max_trials)) for i, q in enumerate(state) if _open(q, max_trials)}:
        seeded = round_seed(seed, "data", number)
        draw(sampler, prompts, wanted, purpose="data", seed=seeded, draws=draws or Draws(), chunk=_CHUNK, done=done)
        number += 1
    report = SamplingReport(
        targets=[q.target for q in state],
        correct=[q.correct for q in state],
        trials=[q.seen for q in state],
        ids=names,
        drawn=sum(q.trials for q in state),
    )
    if not report.coverage:
        raise UsageError(f"no query was answered rightly in up to {max(report.trials)} trials: check answers and model")
    out = []
    for row, prompt, name, query in zip(rows, prompts, names, state, strict=True):
        others = {column: value for column, value in row.items() if column not in _NOT_COPIED}
        for trial, answer in query.kept:
            own = {"id": f"{name}-{trial}", "prompt": prompt, "response": answer, "query": name, "trial": trial}
            out.append({**own, **{c: v for c, v in others.items() if c not in own}})
    return dataset_from_rows(out), report


def vanilla_rejection_sampling(
    sampler: Sampler,
    checker: Checker,
    queries: Dataset,
    k: int,
    *,
    budget: int | None = None,
    dedup: bool = True,
    seed: int = 0,
    draws: Draws | None = None,
    progress: Told | None = None,
) -> tuple[Dataset, SamplingReport]:
    """The baseline: ask every query k times and keep the right answers.

    Args:
        sampler, checker, queries, dedup, seed, draws, progress: as for `difficulty_aware_sampling`.
        k: trials for each query.
        budget: rows in all; where there are more, a seeded choice among them. None keeps all.

    Returns:
        As `difficulty_aware_sampling`, where no query can have more than k right answers.

    Raises:
        UsageError, DemurError: as there.
    """
    targets = [k] * len(queries)
    rows, report = difficulty_aware_sampling(
        sampler, checker, queries, targets, max_trials=k, dedup=dedup, seed=seed, draws=draws, progress=progress
    )
    if budget is not None and len(rows) > budget:
        rows = rows.select(sorted(random.Random(seed).sample(range(len(rows)), budget)))
    return rows, report


def _open(query: _Query, max_trials: int) -> bool:
    return query.correct < query.target and query.trials < max_trials


def _next_trials(query: _Query, max_trials: int) -> int:
    """What is missing; for a query that is rarely solved a quarter of its trials so far, or rounds would never end."""
    return min(max(query.target - query.correct, query.trials // 4), max_trials - query.trials)


def _queries(queries: Dataset) -> tuple[list[dict[str, Any]], list[Any], list[str]]:
    """Rows, prompts and names; rows that ask the same would draw the same answers."""
    if not len(queries):
        raise UsageError("there are no queries to sample answers to")
    prompts = question_answer(queries)[0]
    rows = list(iterate(queries))
    names = [str(row.get("id", number)) for number, row in enumerate(rows)]
    seen: dict[str, str] = {}
    for name, prompt in zip(names, prompts, strict=True):
        if (other := seen.setdefault(repr(prompt), name)) != name:
            raise UsageError(f"rows {other!r} and {name!r} ask the same: keep one of them")
    return rows, prompts, names


def _right(checker: Checker, answer: str, row: Mapping[str, Any], name: str) -> bool:
    try:
        return bool(checker(answer, row))
    except Exception as error:
        raise DemurError(f"the answer checker failed on row {name!r}, answer {answer[:80]!r}: {error}") from error
