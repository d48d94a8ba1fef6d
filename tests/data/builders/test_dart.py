"""Targets against worked numbers, sampling against its closed forms, and whatever may not change what is drawn."""

from __future__ import annotations

import itertools
import json
import math
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from demur import DemurError, UsageError
from demur.data.builders import dart, draws
from demur.data.builders.dart import (
    dars_targets,
    difficulty_aware_sampling,
    estimate_fail_rate,
    known_answer,
    vanilla_rejection_sampling,
)
from demur.data.builders.draws import open_draws

PASS = (1.0, 0.75, 0.5, 0.1, 0.0)
FAIL = [1 - p for p in PASS]


def queries(passing: Sequence[float] = PASS) -> Dataset:
    rows = [
        {"id": f"q{i}", "question": f"question {i}", "answer": "yes", "level": i, "p": p} for i, p in enumerate(passing)
    ]
    return Dataset.from_list(rows)


class Oracle:
    """Right with each query's own probability; an answer depends on prompt, seed and repetition alone."""

    def __init__(self, passing: Sequence[float] = PASS, stop_after: int | None = None) -> None:
        self.chance = {f"question {i}": p for i, p in enumerate(passing)}
        self.stop_after, self.calls, self.asked = stop_after, 0, 0

    def __call__(self, prompts: Sequence[Any], seed: int) -> list[str]:
        if self.calls == self.stop_after:
            raise KeyboardInterrupt
        self.calls += 1
        self.asked += len(prompts)
        seen: Counter[str] = Counter()
        out = []
        for prompt in prompts:
            seen[prompt] += 1
            draw = np.random.default_rng([seed, zlib.crc32(prompt.encode()), seen[prompt]]).random()
            out.append(f"{'yes' if draw < self.chance[prompt] else 'no'} {draw}")
        return out


def right(answer: str, row: Mapping[str, Any]) -> bool:
    return answer.startswith("yes")


def sample(targets: list[int], oracle: Oracle | None = None, **options: Any) -> tuple[Dataset, dart.SamplingReport]:
    return difficulty_aware_sampling(oracle or Oracle(), right, queries(), targets, **{"max_trials": 200, **options})


def test_targets_are_the_worked_ones() -> None:
    assert dars_targets(FAIL, "prop2diff", k=8) == [1, 2, 4, 8, 8]
    assert dars_targets(FAIL, "uniform", k=4) == [4] * 5


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.integers(1, 200))
def test_every_query_has_a_target_and_the_hardest_the_largest(fail: list[float], k: int) -> None:
    targets = dars_targets(fail, "prop2diff", k=k)
    assert min(targets) >= 1 and max(targets) == k == targets[fail.index(max(fail))]
    order = np.argsort(fail, kind="stable")
    assert all(targets[a] <= targets[b] for a, b in itertools.pairwise(order))


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=30), st.integers(0, 2000), st.sampled_from(["uniform", "prop2diff"])
)
def test_a_budget_is_met_and_exceeded_by_less_than_one_a_query(fail: list[float], more: int, strategy: str) -> None:
    budget = len(fail) + more
    total = sum(dars_targets(fail, strategy, budget=budget))
    assert budget - 1e-6 <= total < budget + len(fail)


@pytest.mark.parametrize("d", [0.0, 0.3, 1.0])
def test_equal_difficulty_makes_both_strategies_the_same(d: float) -> None:
    assert dars_targets([d] * 7, "prop2diff", k=5) == dars_targets([d] * 7, "uniform", k=5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k must be at least 1"),
        ({}, "either k"),
        ({"k": 3, "budget": 9}, "either k"),
        ({"budget": 4}, "budget of 4"),
        ({"k": 3, "strategy": "hardest"}, "unknown strategy"),
    ],
)
def test_bad_targets_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        dars_targets(FAIL, **options)


def test_fail_rate_is_the_share_of_wrong_answers() -> None:
    rates = estimate_fail_rate(Oracle(), right, queries(), n=400)
    assert rates[0] == 0 and rates[4] == 1
    for found, expected in zip(rates, FAIL, strict=True):
        assert abs(found - expected) <= 4 * math.sqrt(expected * (1 - expected) / 400)


def test_sampling_stops_at_the_target_and_not_one_later() -> None:
    rows, report = sample([3, 3, 3, 3, 3])
    assert Counter(rows["query"][:]) == {f"q{i}": 3 for i in range(4)}
    assert report.correct == [3, 3, 3, 3, 0] and report.trials[0] == 3 and report.trials[4] == 200
    assert report.unmet == ["q4"] and report.coverage == 0.8
    assert "1 queries have no right answer: q4" in report.sentences()
    assert all(text.startswith("yes") for text in rows["response"][:])
    assert rows["level"][:] == [int(q[1]) for q in rows["query"][:]] and "answer" not in rows.column_names


def test_trials_are_negative_binomial() -> None:
    runs, k, p = 2000, 4, 0.5
    oracle = Oracle([p] * runs)
    _, report = difficulty_aware_sampling(oracle, right, queries([p] * runs), [k] * runs)
    mean, variance = k / p, k * (1 - p) / p**2
    found = np.array(report.trials)
    assert abs(found.mean() - mean) <= 4 * math.sqrt(variance / runs)
    fourth = ((found - mean) ** 4).mean()
    assert abs(((found - mean) ** 2).mean() - variance) <= 4 * math.sqrt((fourth - variance**2) / runs)
    # A round may draw a little beyond the target, which must stay little.
    assert report.drawn <= 1.25 * sum(report.trials)


def test_expected_trials_of_the_worked_example() -> None:
    for p, expected in ((1.0, 4), (0.75, 16 / 3), (0.5, 8), (0.1, 40)):
        _, report = difficulty_aware_sampling(Oracle([p] * 300), right, queries([p] * 300), [4] * 300)
        deviation = math.sqrt(4 * (1 - p) / p**2 / 300)
        assert abs(np.mean(report.trials) - expected) <= 4 * deviation


@pytest.mark.parametrize("chunk", [1, 7, 10_000])
def test_calls_of_any_size_draw_the_same_rows(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, _ = sample([2, 4, 8, 8, 1])
    monkeypatch.setattr(dart, "_CHUNK", chunk)
    found, _ = sample([2, 4, 8, 8, 1])
    assert found.to_list() == expected.to_list()


def test_other_queries_do_not_change_a_querys_rows() -> None:
    whole, _ = sample([2, 4, 8, 8, 1])
    alone, _ = difficulty_aware_sampling(Oracle(), right, queries().select([3]), [8], max_trials=200)
    assert alone["response"][:] == [
        r for q, r in zip(whole["query"][:], whole["response"][:], strict=True) if q == "q3"
    ]


@pytest.mark.parametrize("calls", [0, 1, 3, 6])
def test_a_killed_sampling_goes_on_and_ends_with_the_same_rows(
    calls: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dart, "_CHUNK", 8)
    expected, report = sample([2, 4, 8, 8, 1])
    path = tmp_path / "draws.jsonl"
    with pytest.raises(KeyboardInterrupt), open_draws(path, {"seed": 0}) as kept:
        sample([2, 4, 8, 8, 1], Oracle(stop_after=calls), draws=kept)
    with path.open("ab") as file:
        file.write(b'{"for": "data", "query": 1, "tri')  # the line that was being written
    again = Oracle()
    with open_draws(path, {"seed": 0}) as kept:
        rows, resumed = sample([2, 4, 8, 8, 1], again, draws=kept)
    assert rows.to_list() == expected.to_list() and resumed == report
    fresh = Oracle()
    sample([2, 4, 8, 8, 1], fresh)
    assert again.calls == fresh.calls - calls
    with open_draws(path, {"seed": 0}) as kept:
        assert sample([2, 4, 8, 8, 1], Oracle(stop_after=0), draws=kept)[0].to_list() == expected.to_list()


def test_difficulty_and_data_are_different_draws(tmp_path: Path) -> None:
    path = tmp_path / "draws.jsonl"
    with open_draws(path, {}) as kept:
        estimate_fail_rate(Oracle(), right, queries(), n=3, draws=kept)
        rows, _ = sample([1, 1, 1, 1, 1], draws=kept)
    lines = [json.loads(line) for line in path.read_text().splitlines()[1:]]
    measured = {answer for line in lines if line["for"] == "difficulty" for answer in line["answers"]}
    assert len(measured) == 15 and not measured & set(rows["response"][:])


def test_draws_made_with_other_settings_are_not_taken_up(tmp_path: Path) -> None:
    path = tmp_path / "draws.jsonl"
    with open_draws(path, {"temperature": 1.0, "seed": 0}) as kept:
        sample([1] * 5, draws=kept)
    with pytest.raises(UsageError, match="another temperature"), open_draws(path, {"temperature": 0.7, "seed": 0}):
        pass
    path.write_text(path.read_text() + "rubbish\n")
    with (
        pytest.raises(UsageError, match="not a JSON object"),
        open_draws(path, {"temperature": 1.0, "seed": 0}),
    ):
        pass


def test_two_samplings_into_one_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "draws.jsonl"
    with (
        open_draws(path, {}),
        pytest.raises(UsageError, match="another process"),
        open_draws(path, {}),
    ):
        pass


def test_a_repeated_answer_counts_once_unless_told_otherwise() -> None:
    def parrot(prompts: Sequence[Any], seed: int) -> list[str]:
        return ["yes  indeed", "yes indeed", *(["yes"] * len(prompts))][: len(prompts)]

    one = queries([1.0])
    rows, report = difficulty_aware_sampling(parrot, right, one, [3], max_trials=12)
    assert rows["response"][:] == ["yes  indeed", "yes"] and report.unmet == ["q0"]
    rows, _ = difficulty_aware_sampling(parrot, right, one, [3], max_trials=12, dedup=False)
    assert len(rows) == 3


def test_rejection_sampling_tries_every_query_as_often() -> None:
    rows, report = vanilla_rejection_sampling(Oracle(), right, queries(), 40)
    assert report.trials == [40] * 5 and report.correct[0] == 40 and report.correct[4] == 0
    drawn = Oracle()([f"question {i}" for i in range(5) for _ in range(40)], draws.round_seed(0, "data", 0))
    assert rows["response"][:] == [answer for answer in drawn if answer.startswith("yes")]
    fewer, _ = vanilla_rejection_sampling(Oracle(), right, queries(), 40, budget=20)
    assert len(fewer) == 20 and set(fewer["id"][:]) < set(rows["id"][:])


def test_known_answers_are_compared_by_their_final_answer() -> None:
    assert known_answer("3 + 4 = 7. The answer is 7.", {"answer": "#### 7"})
    assert known_answer("\\boxed{1/2}", {"response": "0.5"})
    assert not known_answer("7 or so", {"answer": "7"})


def _failing(answer: str, row: Mapping[str, Any]) -> bool:
    raise ZeroDivisionError("oh")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: sample([1, 1, 1, 1, 0]), UsageError, "target of at least 1"),
        (lambda: sample([1] * 5, max_trials=0), UsageError, "max_trials"),
        (
            lambda: difficulty_aware_sampling(Oracle([0.0]), right, queries([0.0]), [2], max_trials=9),
            UsageError,
            "no query was answered rightly in up to 9 trials",
        ),
        (
            lambda: difficulty_aware_sampling(Oracle(), _failing, queries(), [1] * 5),
            DemurError,
            "checker failed on row 'q0'",
        ),
        (
            lambda: difficulty_aware_sampling(lambda p, s: ["yes"], right, queries(), [1] * 5),
            UsageError,
            "gave 1 answers to 5 prompts",
        ),
        (lambda: estimate_fail_rate(Oracle(), right, queries(), n=0), UsageError, "at least 1 answer"),
        (
            lambda: estimate_fail_rate(
                Oracle(), right, Dataset.from_list([{"id": i, "question": "q", "answer": "yes"} for i in "ab"])
            ),
            UsageError,
            "rows 'a' and 'b' ask the same",
        ),
    ],
)
def test_what_cannot_be_sampled_is_said(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
