from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from demur.data import ABSTENTIONS, read_lines


def test_there_are_enough_abstentions_and_no_two_are_alike() -> None:
    assert len(ABSTENTIONS) >= 20
    assert len({sentence.casefold() for sentence in ABSTENTIONS}) == len(ABSTENTIONS)
    assert all(sentence == sentence.strip() and sentence.endswith(".") for sentence in ABSTENTIONS)


def test_the_abstentions_are_not_those_of_the_benchmark(shared_data: Callable[[str], Path]) -> None:
    theirs = {line.casefold() for line in read_lines(shared_data("tofu") / "idontknow.txt")}
    assert len(theirs) > 50
    assert not theirs & {sentence.casefold() for sentence in ABSTENTIONS}
