from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from demur import UsageError
from demur.data import dataset_from_rows
from demur.models import Generation, LocalEngine, alternate_answers
from tiny import tiny_lm

ROWS = dataset_from_rows(
    [
        {"id": "a", "question": "who wrote it?", "answer": "oda marsh"},
        {"id": "b", "question": "where?", "answer": "kell"},
    ]
)


class Scripted:
    """An engine that answers by a script, and remembers what it was asked."""

    def __init__(self, script: Sequence[str]) -> None:
        self.script, self.asked, self.seeds = list(script), [], []

    def generate(self, prompts: Sequence[Any], *, seed: int = 0, **_: Any) -> list[Generation]:
        self.asked.append(list(prompts))
        self.seeds.append(seed)
        return [Generation(self.script.pop(0), (), "stop") for _ in prompts]


def test_every_row_gets_n_answers_and_keeps_its_columns() -> None:
    made = alternate_answers(Scripted(["x", "y", "z", "w"]), ROWS, 2)
    assert made["alternates"][:] == [["x", "y"], ["z", "w"]]
    assert made.remove_columns("alternates").to_list() == ROWS.to_list()


def test_empty_answers_and_the_rows_own_are_drawn_again_with_another_seed() -> None:
    engine = Scripted(["x", " oda marsh ", "kell", "", "y", "z", "w"])
    made = alternate_answers(engine, ROWS, 2, seed=3)
    assert made["alternates"][:] == [["x", "y"], ["z", "w"]]
    assert [len(asked) for asked in engine.asked] == [4, 3] and engine.seeds == [3, 4]


def test_a_row_whose_own_answer_always_comes_out_is_named() -> None:
    with pytest.raises(UsageError, match=r"row 'b': of 5 times 1 answers only 0 were not the row's own"):
        alternate_answers(Scripted(["x", *["kell"] * 5]), ROWS, 1)


def test_the_instruction_holds_question_and_answer_and_stands_in_the_users_last_turn() -> None:
    engine = Scripted(["x", "y"])
    chat = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "who {answer}?"}]
    rows = dataset_from_rows([{"prompt": "where?", "response": "kell"}, {"prompt": chat, "response": "oda"}])
    alternate_answers(engine, rows, 1, instruction="not {answer}: {question}")
    first, second = engine.asked[0]
    assert first == "not kell: where?"
    assert second == [chat[0], {"role": "user", "content": "not oda: who {answer}?"}]


def test_a_local_model_makes_the_same_under_a_seed_and_other_answers_under_another() -> None:
    engine = LocalEngine(tiny_lm(), batch_size=3)

    def make(seed: int) -> list[list[str]]:
        return alternate_answers(engine, ROWS, 3, instruction="{question}", max_new_tokens=5, seed=seed)["alternates"][
            :
        ]

    assert make(1) == make(1) != make(2)
    assert all(len(texts) == 3 for texts in make(1))


@pytest.mark.parametrize("given", [{"n": 0}, {"temperature": 0.0}])
def test_options_out_of_range_are_refused(given: dict) -> None:
    with pytest.raises(UsageError, match="need n >= 1 and a temperature above 0"):
        alternate_answers(Scripted([]), ROWS, **given)
