from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from demur.errors import DemurError, TooLongError
from demur.models import Gathering, Generation, LocalEngine
from tiny import tiny_lm


class Upper:
    """Answers in capitals and remembers its batches."""

    def __init__(self) -> None:
        self.batches: list[tuple[list[str], dict[str, Any]]] = []

    def generate(self, prompts: Sequence[str], **options: Any) -> list[Generation]:
        self.batches.append((sorted(prompts), options))
        if "boom" in prompts:
            raise DemurError("the server is gone")
        return [Generation(prompt.upper(), (), "stop") for prompt in prompts]


def test_questions_of_all_items_go_into_one_batch() -> None:
    engine, gathering = Upper(), Gathering()
    asked = gathering.around(engine)

    def twice(item: str) -> str:
        (first,) = asked.generate([item])
        (second,) = asked.generate([first.text + "!"], temperature=1.0)
        return second.text

    found = dict(gathering.map(twice, ["a", "b", "c"], workers=3))
    assert found == {"a": "A!", "b": "B!", "c": "C!"}
    assert engine.batches == [(["a", "b", "c"], {}), (["A!", "B!", "C!"], {"temperature": 1.0})]


def test_two_engines_and_uneven_items_do_not_wait_for_each_other_for_ever() -> None:
    first, second, gathering = Upper(), Upper(), Gathering()
    engines = [gathering.around(first), gathering.around(second)]

    def work(item: int) -> int:
        for turn in range(item):
            engines[(item + turn) % 2].generate([f"{item}.{turn}"], seed=turn)
        return item

    items = [0, 5, 1, 3, 0, 2, 7, 4]
    assert sorted(item for item, _ in gathering.map(work, items, workers=3)) == sorted(items)
    assert sum(len(prompts) for prompts, _ in first.batches + second.batches) == sum(items)
    assert list(gathering.map(work, [], workers=3)) == []


@pytest.mark.parametrize("workers", [1, 4])
def test_a_sampled_answer_is_that_of_one_prompt_at_a_time(workers: int) -> None:
    engine, gathering = LocalEngine(tiny_lm()), Gathering()
    asked = gathering.around(engine)
    prompts = ["who wrote lamp?", "oda", "the north", "who?"]
    options = {"max_new_tokens": 8, "temperature": 1.0, "seed": 3}
    alone = {prompt: engine.generate([prompt], **options) for prompt in prompts}
    assert dict(gathering.map(lambda prompt: asked.generate([prompt], **options), prompts, workers)) == alone


@pytest.mark.parametrize("where", ["engine", "function"])
def test_an_error_ends_all_work(where: str) -> None:
    gathering = Gathering()
    asked = gathering.around(Upper())

    def work(item: str) -> str:
        if item == "boom" and where == "function":
            raise DemurError("the server is gone")
        return asked.generate([item])[0].text

    with pytest.raises(DemurError, match="the server is gone"):
        list(gathering.map(work, ["a", "boom", "b", "c"], workers=2))


def test_a_prompt_that_is_too_long_fails_its_own_item_only() -> None:
    class Picky(Upper):
        def generate(self, prompts: Sequence[str], **options: Any) -> list[Generation]:
            if any(len(prompt) > 3 for prompt in prompts):
                raise TooLongError("too long")
            return super().generate(prompts, **options)

    gathering = Gathering()
    asked = gathering.around(Picky())

    def work(item: str) -> str:
        try:
            return asked.generate([item])[0].text
        except TooLongError as error:
            return str(error)

    found = dict(gathering.map(work, ["a", "much", "b"], workers=3))
    assert found == {"a": "A", "much": "too long", "b": "B"}
