"""Losses as ratios of polynomials, read back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sympy import Symbol, expand

from demur.objectives.preference_logic import (
    ATOMS,
    NotExpressibleError,
    PreferenceStructure,
    assignments,
    decompile,
    enumerate_structures,
    known_name,
)

RATIOS = {
    "uncpo": ("w*l + 1 - l", "l*(1-w)"),
    "orpo": ("w*(1-l)", "l*(1-w)"),
    "cpo": ("w", "l"),
    "ccpo": ("w", "l*(1-w)"),
    "cfunl": ("1-l", "l*(1-w)"),
    "qfunl": ("1-l", "1-w"),
    "ce": ("w", "1-w"),
    "ceunl": ("w*(1-l)", "1 - w*(1-l)"),
    "funl": ("1-l", "l"),
    "dpo": ("p_w*rl", "rw*p_l"),
}


@pytest.mark.parametrize("name", RATIOS)
def test_published_ratios_are_recognised(name: str) -> None:
    assert known_name(decompile(*RATIOS[name])) == name


def _expanded(structure: PreferenceStructure, side: tuple[bool, ...]) -> str:
    total = 0
    for world, inside in zip(assignments(structure.atoms), side, strict=True):
        if inside:
            term = 1
            for name, true in world.items():
                term *= Symbol(name.lower()) if true else 1 - Symbol(name.lower())
            total += term
    return str(expand(total))


@given(st.sampled_from(enumerate_structures(sensible=False)))
def test_reading_back_what_was_compiled_gives_the_structure_again(structure: PreferenceStructure) -> None:
    assert decompile(_expanded(structure, structure.good), _expanded(structure, structure.bad)) == structure


@pytest.mark.parametrize(
    ("top", "bottom", "problem"),
    [
        ("w + l", "l", "top is 2 at w=1, l=1"),
        ("w", "l**2", "bottom: l occurs to the power 2.*l\\*l2"),
        ("w", "w/2 + l/2", "bottom is 1/2 at w=1, l=0"),
        ("w - l", "l", "top is -1 at w=0, l=1"),
    ],
)
def test_a_loss_that_no_formula_means_is_refused_with_the_reason(top: str, bottom: str, problem: str) -> None:
    with pytest.raises(NotExpressibleError, match=problem):
        decompile(top, bottom)


@pytest.mark.parametrize("text", ["w +", "exp(w)", "w/l", "w if l else 1", "__import__('os')", "w**-1", "w**99", ""])
def test_what_is_no_polynomial_is_refused_and_never_run(text: str) -> None:
    with pytest.raises(ValueError) as refused:
        decompile(text, "l")
    assert not isinstance(refused.value, NotExpressibleError)


def test_copies_let_powers_be_written() -> None:
    assert decompile("w*w2", "l").atoms == (*ATOMS, "W2")
