from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demur.data import build_curriculum, dataset_from_rows
from demur.errors import RowError, UsageError


def answer(prompt: str, response: str, honest: bool, score: float | None = None) -> dict[str, Any]:
    return {"prompt": prompt, "response": response, "honest": honest, "score": score}


RECORDS = [
    answer(f"q{i}", text, honest, score)
    for i in range(3)
    for text, honest, score in (("bluff", False, None), ("no", True, 2.0), ("limit", True, 6.0), ("full", True, 9.5))
]


def pairs(rows) -> set[tuple[str, str, str]]:
    return {(r["prompt"], r["chosen"], r["rejected"]) for r in rows}


def test_stage_one_prefers_the_honest_and_stage_two_the_helpful_among_them() -> None:
    first, second = build_curriculum(dataset_from_rows(RECORDS), 6.0)
    assert pairs(first) == {(f"q{i}", won, "bluff") for i in range(3) for won in ("no", "limit", "full")}
    assert pairs(second) == {(f"q{i}", won, "no") for i in range(3) for won in ("limit", "full")}
    assert all(r["chosen_score"] >= 6 > r["rejected_score"] for r in second)


def test_the_threshold_parts_helpful_from_less_helpful() -> None:
    _, second = build_curriculum(dataset_from_rows(RECORDS), 7.0)
    assert pairs(second) == {(f"q{i}", "full", lost) for i in range(3) for lost in ("no", "limit")}


def test_pairs_are_drawn_evenly_over_prompts_and_by_the_seed() -> None:
    rows = dataset_from_rows(RECORDS)
    first, second = build_curriculum(rows, most=3, seed=1)
    assert Counter(first["prompt"][:]) == {"q0": 1, "q1": 1, "q2": 1} == Counter(second["prompt"][:])
    assert pairs(build_curriculum(rows, most=3, seed=1)[0]) == pairs(first)
    assert any(pairs(build_curriculum(rows, most=3, seed=seed)[0]) != pairs(first) for seed in range(2, 6))


@given(
    st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.integers(1, 10)), min_size=1, max_size=20),
    st.sampled_from([5.0, 6.0, 7.0]),
)
def test_every_pair_is_of_one_prompt_and_the_right_way_round(drawn, threshold: float) -> None:
    records = [answer(f"q{q}", f"a{i}", honest, float(score)) for i, (q, honest, score) in enumerate(drawn)]
    known = {(r["prompt"], r["response"]): r for r in records}
    try:
        first, second = build_curriculum(dataset_from_rows(records), threshold)
    except UsageError:
        return
    for rows, honest in ((first, False), (second, True)):
        for row in rows:
            won, lost = known[row["prompt"], row["chosen"]], known[row["prompt"], row["rejected"]]
            assert won["honest"] and lost["honest"] is honest
            assert not honest or won["score"] >= threshold > lost["score"]


@pytest.mark.parametrize(
    ("change", "column", "problem"),
    [
        ({"honest": None}, "honest", "true or false"),
        ({"score": None}, "score", "1 to 10"),
        ({"score": 11.0}, "score", "1 to 10"),
        ({"response": None}, "response", "missing"),
    ],
)
def test_a_record_that_was_not_judged_is_named(change: dict[str, Any], column: str, problem: str) -> None:
    broken = [*RECORDS[:2], {**RECORDS[2], **change}, *RECORDS[3:]]
    with pytest.raises(RowError, match=problem) as caught:
        build_curriculum(dataset_from_rows(broken), source="judged.jsonl")
    assert (caught.value.file, caught.value.line, caught.value.column) == ("judged.jsonl", 3, column)


def test_an_empty_stage_is_refused() -> None:
    honest = [r for r in RECORDS if r["honest"]]
    with pytest.raises(UsageError, match="stage 1 is empty"):
        build_curriculum(dataset_from_rows(honest))
    with pytest.raises(UsageError, match=r"stage 2 is empty.*another threshold"):
        build_curriculum(dataset_from_rows(RECORDS), 10.0)
