from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demur.guards import find_phrase, key_phrases
from demur.guards.phrases import normalise, surface_forms


@pytest.mark.parametrize(
    ("question", "answer", "phrases"),
    [
        (
            "What is the full name of the author born in Kell on 08/09/1956?",
            "The full name of the author born in Kell on the 8th of September, 1956 is Oda Marsh.",
            ["8th", "September", "1956", "Oda", "Marsh"],
        ),
        (
            "Who wrote the Green Lamp?",
            "The Green Lamp was written by Oda Marsh's sister.",
            ["written", "Oda", "Marsh", "sister"],
        ),
        ("Where was Oda Marsh born?", "Oda Marsh was born there.", []),
        ("Is the lamp green?", "The green lamp is Ed's.", ["green lamp", "Ed"]),
        ("How many?", "It is of no use: 7.", ["use", "7"]),
    ],
    ids=str,
)
def test_what_gives_an_answer_away(question: str, answer: str, phrases: list[str]):
    assert key_phrases(question, answer) == phrases


def test_stop_words_alone_are_never_forbidden():
    assert key_phrases("Who?", "He is not the one who was there before.") == []


texts = st.text("ab AB.1é-", max_size=30)


@given(texts, texts)
def test_phrases_come_from_the_answer_and_none_contains_another(question: str, answer: str):
    phrases = key_phrases(question, answer)
    assert all(phrase in answer for phrase in phrases)
    folded = [f" {normalise(p)} " for p in phrases]
    assert not any(a != b and a in b for a in folded for b in folded)


def test_case_and_white_space_do_not_hide_a_phrase():
    assert find_phrase(["Oda Marsh"], "it was ODA \n marsh.") == "Oda Marsh"
    assert find_phrase(["Oda Marsh"], "it was Oda.") is None


def test_surface_forms_stand_with_and_without_a_space():
    assert surface_forms("oda marsh")[:2] == [" oda marsh", "oda marsh"]
    assert {" Oda Marsh", "ODA MARSH", "Oda marsh"} <= set(surface_forms("oda marsh"))
