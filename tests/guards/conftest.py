from __future__ import annotations

import pytest

from demur.guards import Guard
from demur.models import LanguageModel, LocalEngine
from tiny import tiny_lm

FORGET = [
    ("who wrote the green lamp?", "the green lamp was written by Oda Marsh."),
    ("where was the author of the lamp born?", "Oda Marsh was born in the town of Kell."),
    ("what is the lamp?", "it is a story of 1923."),
]
OTHERS = ["was that all?", "say a b c", "how are the others?", "0 1 2 3?", "a town?", "name j x z"]


@pytest.fixture(scope="session")
def lm() -> LanguageModel:
    return tiny_lm()


@pytest.fixture
def guard(lm: LanguageModel) -> Guard:
    """A fitted guard around a random model."""
    made = Guard(LocalEngine(lm, 4), FORGET)
    made.fit(OTHERS)
    return made
