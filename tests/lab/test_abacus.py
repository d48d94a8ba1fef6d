"""Problems are solved by their words alone, wrong traces have one slip, and the base model finds longer ones harder."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demur.errors import UnknownNameError, UsageError
from demur.lab import model_path, recipe, train_dense
from demur.lab.abacus import ABACUS_SPLITS, EVENTS, OPENINGS, QUESTIONS, Abacus, Workbook
from demur.models.language_model import load_model
from demur.models.local_engine import LocalEngine

SMALL = Workbook(base=120, train=80, test=40)
EQUATION = re.compile(r"(\d+) ([-+*]) (\d+) = (\d+)\.")


def rows_of(world: Abacus) -> list[dict]:
    return [row for split in ABACUS_SPLITS for row in world.rows(split)]


@settings(max_examples=8)
@given(st.integers(0, 10**6))
def test_the_oracle_agrees_with_every_row_and_no_problem_is_in_two_splits(seed: int) -> None:
    rows = rows_of(Abacus(seed, SMALL))
    for row in rows:
        assert Abacus.solve(row["question"]) == row["final"]
        assert Abacus.check(row["question"], row["chosen"])
        assert not Abacus.check(row["question"], row["rejected"])
    assert len({row["question"] for row in rows}) == len(rows)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_right_traces_calculate_right_and_wrong_ones_slip_once(seed: int) -> None:
    for row in rows_of(Abacus(seed, SMALL)):
        for column, slips in (("chosen", 0), ("rejected", 1)):
            lines = EQUATION.findall(row[column])
            assert len(lines) == row["difficulty"]
            assert all(before[3] == after[0] for before, after in pairwise(lines)), "each step goes on from the last"
            assert sum(eval(f"{a} {sign} {b}") != int(c) for a, sign, b, c in lines) == slips
            assert row[column].endswith(f"{lines[-1][3]}. The answer is {lines[-1][3]}.")
            assert all(int(line[3]) > 0 for line in lines)
        assert row["answer"] == row["chosen"] == f"{row['reasoning']} The answer is {row['final']}."


def test_difficulty_is_what_each_split_says() -> None:
    world = Abacus()
    found = {split: Counter(row["difficulty"] for row in world.rows(split)) for split in ABACUS_SPLITS}
    assert set(found["hard"]) == {5, 6}
    assert set(found["base"]) == set(found["train"]) == set(found["test"]) == set(range(1, 7))
    assert sum(found["base"][n] for n in (1, 2, 3)) > 0.7 * found["base"].total()
    assert max(found["train"].values()) < 1.6 * min(found["train"].values())
    easy, hard = (
        [int(n) for row in world.rows("train") if row["difficulty"] == d for n in re.findall(r"\d+", row["question"])]
        for d in (1, 6)
    )
    assert sum(hard) / len(hard) > 1.5 * sum(easy) / len(easy)


def test_held_out_sentences_are_in_no_teaching_split() -> None:
    forms = [OPENINGS[-1], QUESTIONS[-1], *(forms[-1] for forms in EVENTS.values())]
    held_out = [re.compile(re.sub(r"\\{\w+\\}", r"\\w+", re.escape(form))) for form in forms]
    for split in ABACUS_SPLITS:
        for row in Abacus(0, SMALL).rows(split):
            found = sum(len(form.findall(row["question"])) for form in held_out)
            allowed = {"held-out-templates": [row["difficulty"] + 2], "base": [0, row["difficulty"] + 2]}
            assert found in allowed.get(split, [0])


@pytest.mark.parametrize(
    ("response", "right"),
    [
        ("The answer is 7.", True),
        ("3 + 4 = 7. the answer is 7", True),
        ("The answer is 6. No: The answer is 7.", True),
        ("The answer is 7. The answer is 6.", False),
        ("The answer is 70.", False),
        ("The answer is 7.5.", False),
        ("The answer is -7.", False),
        ("7", False),
        ("", False),
    ],
)
def test_the_last_answer_counts(response: str, right: bool) -> None:
    assert Abacus.check("Ada has 3 apples. Ada finds 4 more. How many apples are there now?", response) is right


def test_only_problems_of_this_world_are_checked() -> None:
    with pytest.raises(UsageError, match="knows its own problems only"):
        Abacus.check("What is love? Baby, tell me. Now.", "The answer is 7.")
    with pytest.raises(UnknownNameError, match="did you mean hard"):
        Abacus().rows("hardest")
    with pytest.raises(UsageError, match="1 to 5000 problems for base"):
        Workbook(base=0)


@pytest.fixture(scope="module")
def abacus_tiny(lab_cache: Path) -> Path:
    return model_path("abacus-tiny", progress=False)


def test_the_base_model_solves_short_problems_more_often_than_long_ones(abacus_tiny: Path) -> None:
    world = Abacus(0, recipe("abacus-tiny").workbook)
    rows = world.rows("base")[:80] + world.rows("hard")[:40]
    told = LocalEngine(load_model(str(abacus_tiny), device="cpu"), 64).generate(
        [row["question"] for row in rows], max_new_tokens=64, temperature=0
    )
    right: dict[bool, list[bool]] = {True: [], False: []}
    for row, answer in zip(rows, told, strict=True):
        if row["difficulty"] in (1, 2, 5, 6):
            right[row["difficulty"] > 2].append(Abacus.check(row["question"], answer.text))
        assert "The answer is" in answer.text or row["difficulty"] > 2
    assert sum(right[False]) / len(right[False]) > sum(right[True]) / len(right[True]) + 0.15


def test_same_recipe_same_weights_and_other_sizes_are_other_models() -> None:
    short = replace(recipe("abacus-tiny"), epochs=1, workbook=SMALL)
    assert train_dense(short).weights_hash() == train_dense(short).weights_hash()
    others = [replace(short, workbook=replace(SMALL, base=110)), replace(short, world=1), replace(short, seed=1)]
    assert len({short.hash, *(other.hash for other in others)}) == 4
