from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demur.objectives.preference_logic import assignments, minimal, parse


@pytest.mark.parametrize(
    ("text", "table"),
    [
        ("L -> W", (True, True, False, True)),
        ("W & L", (True, False, False, False)),
        ("W ^ L", (False, True, True, False)),
        ("W <-> L", (True, False, False, True)),
        ("~(W & L)", (False, True, True, True)),
        ("not W and not L", (False, False, False, True)),
        ("¬W ∨ L", (True, False, True, True)),
        ("true", (True,) * 4),
        ("W & true | false", (True, True, False, False)),
        ("W -> L -> W", (True,) * 4),
        ("~W & L | W", (True, True, True, False)),
    ],
)
def test_a_formula_has_the_truth_table_of_its_usual_reading(text: str, table: tuple[bool, ...]) -> None:
    assert parse(text).table(("W", "L")) == table


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "expected an atom instead of its end"),
        ("L ->", "instead of its end"),
        ("L W", "expected an operator instead of 'W'"),
        ("(L | W", r"expected '\)'"),
        ("L $ W", "'\\$' at character 3"),
        ("& W", "expected an atom instead of '&'"),
    ],
)
def test_a_text_that_is_no_formula_is_refused_and_where_is_said(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse(text)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=8, max_size=8))
def test_the_shortest_formula_has_the_table_it_was_made_for(rows: list[tuple[bool, bool]]) -> None:
    atoms = ("W", "L", "RW")
    found = parse(minimal(atoms, [t for t, _ in rows], [f for _, f in rows])).table(atoms)
    assert all(free or value == true for value, (true, free) in zip(found, rows, strict=True))


def test_assignments_start_all_true_and_the_last_atom_changes_fastest() -> None:
    assert [tuple(w.values()) for w in assignments(("W", "L"))] == [
        (True, True),
        (True, False),
        (False, True),
        (False, False),
    ]
