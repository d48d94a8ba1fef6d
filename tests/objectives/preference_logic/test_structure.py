"""Structures, their order and their formulas."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demur.objectives.preference_logic import (
    ATOMS,
    KNOWN_LOSSES,
    PreferenceStructure,
    enumerate_structures,
    known_name,
    lattice,
)

LABELS = ("T", "B", "TB", "N")
STRUCTURES = st.tuples(*[st.sampled_from(LABELS)] * 4).map(lambda labels: PreferenceStructure(ATOMS, labels))
TABLE = {
    "uncpo": "T T B T",
    "orpo": "N T B N",
    "cpo": "TB T B N",
    "ccpo": "T T B N",
    "cfunl": "N T B T",
    "qfunl": "N T B TB",
    "ce": "T T B B",
    "ceunl": "B T B B",
    "funl": "B T B T",
}


def known(name: str) -> PreferenceStructure:
    return PreferenceStructure.of(*KNOWN_LOSSES[name])


@pytest.mark.parametrize("name", TABLE)
def test_published_losses_label_the_rows_as_the_paper_has_them(name: str) -> None:
    assert " ".join(known(name).labels) == TABLE[name]
    assert known_name(known(name)) == name


def test_dpo_is_cpo_with_a_reference_and_has_3_good_3_bad_1_shared_and_9_idle_rows() -> None:
    dpo = known("cpo").with_reference()
    assert dpo == known("dpo")
    assert [dpo.labels.count(label) for label in LABELS] == [3, 3, 1, 9]


@given(STRUCTURES)
def test_the_formulas_of_a_structure_mean_it_again(structure: PreferenceStructure) -> None:
    again = PreferenceStructure.of(structure.core, structure.condition, structure.additive, ATOMS)
    assert again == structure


def test_there_are_16_sensible_structures_and_225_with_two_sides() -> None:
    assert len(set(enumerate_structures())) == 16
    assert len(set(enumerate_structures(sensible=False))) == 225
    assert all(s.labels[1:3] == ("T", "B") for s in enumerate_structures())


def test_entailment_among_the_published_losses_is_the_papers() -> None:
    strict = {
        (a, b) for a, b in itertools.permutations(TABLE, 2) if known(a) != known(b) and known(a).entails(known(b))
    }
    expected = {("ceunl", other) for other in TABLE if other != "ceunl"}
    expected |= {("ce", "ccpo"), ("ce", "uncpo"), ("funl", "cfunl"), ("funl", "uncpo")}
    expected |= {("orpo", "ccpo"), ("orpo", "cfunl"), ("orpo", "uncpo"), ("cpo", "ccpo"), ("cpo", "uncpo")}
    expected |= {("ccpo", "uncpo"), ("cfunl", "uncpo"), ("qfunl", "cfunl"), ("qfunl", "uncpo")}
    assert strict == expected


@given(STRUCTURES, STRUCTURES)
def test_meet_and_join_are_the_nearest_bounds(one: PreferenceStructure, other: PreferenceStructure) -> None:
    meet, join = one.meet(other), one.join(other)
    assert meet.entails(one) and meet.entails(other) and one.entails(join) and other.entails(join)
    for third in (PreferenceStructure(ATOMS, labels) for labels in itertools.product(LABELS, repeat=4)):
        assert not (third.entails(one) and third.entails(other)) or third.entails(meet)
        assert not (one.entails(third) and other.entails(third)) or join.entails(third)


def test_the_lattice_has_the_covering_pairs_only() -> None:
    structures = enumerate_structures()
    edges = lattice(structures)
    reached = {i: {i} for i in range(16)}
    for _ in range(16):
        for i, j in edges:
            reached[i] |= reached[j]
    for i, j in itertools.product(range(16), repeat=2):
        assert (j in reached[i]) == structures[i].entails(structures[j])
    assert len(edges) == 32  # the product of two diamonds, 4 edges times 4 rows, twice


def test_collapse_is_foretold_where_no_valid_answer_is_good() -> None:
    doomed = {name for name in TABLE if any("collapse" in w for w in known(name).weaknesses)}
    assert doomed == {"uncpo", "cfunl", "funl"}
    assert known("ce").weaknesses == []


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: PreferenceStructure(ATOMS, ("T", "B")), "need 4 labels, not 2"),
        (lambda: PreferenceStructure(ATOMS, ("T", "B", "X", "N")), "not X"),
        (lambda: PreferenceStructure.of("Z -> W", atoms=ATOMS), "atom Z"),
        (lambda: PreferenceStructure(tuple("ABCDEFG"), ("T",) * 128), "at most 6"),
        (lambda: known("cpo").entails(known("dpo")), "cannot be compared"),
    ],
)
def test_what_is_no_structure_is_refused(make, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        make()
