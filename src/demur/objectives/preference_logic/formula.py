"""Propositional formulas: reading them, their truth tables, and the shortest formula for a table."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Formula", "assignments", "minimal", "parse"]

_TOKEN = re.compile(r"\s*(?:(<->|->|[~!&|^()↔→¬∧∨⊕⊤⊥])|([A-Za-z_]\w*)|(\S))")
_SPELLING = {"!": "~", "¬": "~", "not": "~", "∧": "&", "and": "&", "∨": "|", "or": "|", "⊕": "^", "xor": "^"}
_SPELLING |= {"→": "->", "↔": "<->", "⊤": "true", "⊥": "false"}
_MEANING: dict[str, Callable[[bool, bool], bool]] = {
    "<->": lambda a, b: a == b,
    "->": lambda a, b: not a or b,
    "^": lambda a, b: a != b,
    "|": lambda a, b: a or b,
    "&": lambda a, b: a and b,
}
_BINDING = list(_MEANING)  # loosest first; all group to the right


@dataclass(frozen=True)
class Formula:
    """A formula as a tree.

    Attributes:
        operator: "<->", "->", "^", "|", "&", "~", "true", "false", or "atom".
        parts: the formulas it joins.
        name: of an atom.
    """

    operator: str
    parts: tuple[Formula, ...] = ()
    name: str = ""

    @property
    def atoms(self) -> frozenset[str]:
        """Names of the atoms in it."""
        return frozenset({self.name} if self.operator == "atom" else set().union(*(p.atoms for p in self.parts)))

    def holds(self, world: Mapping[str, bool]) -> bool:
        """Whether it is true where each atom is as `world` says."""
        if self.operator == "atom":
            return world[self.name]
        if not self.parts:
            return self.operator == "true"
        values = [p.holds(world) for p in self.parts]
        return not values[0] if self.operator == "~" else _MEANING[self.operator](*values)

    def table(self, atoms: Sequence[str]) -> tuple[bool, ...]:
        """Its truth table, one value a row of `assignments(atoms)`."""
        return tuple(self.holds(world) for world in assignments(atoms))


def assignments(atoms: Sequence[str]) -> list[dict[str, bool]]:
    """Every assignment of the atoms: all true first, all false last, the last atom changing fastest."""
    return [dict(zip(atoms, row, strict=True)) for row in itertools.product((True, False), repeat=len(atoms))]


def parse(text: str) -> Formula:
    """Read a formula.

    From loosest to tightest: `<->`, `->`, `^` (exclusive or), `|`, `&`, `~`; also written not, and, or, xor, or with
    the mathematical signs. `true` and `false` are constants.

    Raises:
        ValueError: the text is no formula; the message says where.
    """
    tokens: list[tuple[str, int]] = []
    for match in _TOKEN.finditer(text):
        word = match[1] or match[2] or match[3]
        if match[3]:
            raise ValueError(f"formula {text!r}: {word!r} at character {match.start(3) + 1} means nothing here")
        tokens.append((_SPELLING.get(word.lower(), word), match.start() + 1))
    place = 0

    def fail(expected: str) -> ValueError:
        found = f"{tokens[place][0]!r}" if place < len(tokens) else "its end"
        return ValueError(f"formula {text!r}: expected {expected} instead of {found}")

    def joined(level: int) -> Formula:
        nonlocal place
        if level == len(_BINDING):
            return single()
        left = joined(level + 1)
        if place < len(tokens) and tokens[place][0] == _BINDING[level]:
            place += 1
            return Formula(_BINDING[level], (left, joined(level)))
        return left

    def single() -> Formula:
        nonlocal place
        if place == len(tokens):
            raise fail("an atom")
        word = tokens[place][0]
        place += 1
        if word == "~":
            return Formula("~", (single(),))
        if word == "(":
            inner = joined(0)
            if place == len(tokens) or tokens[place][0] != ")":
                raise fail("')'")
            place += 1
            return inner
        if word.lower() in ("true", "false"):
            return Formula(word.lower())
        if not word.isidentifier():
            place -= 1
            raise fail("an atom")
        return Formula("atom", name=word)

    whole = joined(0)
    if place < len(tokens):
        raise fail("an operator")
    return whole


def minimal(atoms: Sequence[str], true: Sequence[bool], free: Sequence[bool] | None = None) -> str:
    """The shortest disjunction of conjunctions with a given truth table.

    Args:
        atoms: their names.
        true: the table, one value a row of `assignments(atoms)`.
        free: rows whose value does not matter.
    """
    from sympy import Symbol, false
    from sympy.logic import SOPform
    from sympy.logic.boolalg import And, Not, Or
    from sympy.logic.boolalg import true as always

    symbols = [Symbol(a) for a in atoms]
    rows = [[int(v) for v in world.values()] for world in assignments(atoms)]
    ignored = free or [False] * len(rows)
    wanted = [row for row, value, skip in zip(rows, true, ignored, strict=True) if value and not skip]
    found = (
        SOPform(symbols, wanted, [row for row, skip in zip(rows, ignored, strict=True) if skip]) if wanted else false
    )

    def text(expression: object, inside: bool) -> str:
        if expression is always or expression is false:
            return "true" if expression is always else "false"
        if isinstance(expression, Not):
            return f"~{text(expression.args[0], True)}"
        if isinstance(expression, And | Or):
            sign = " & " if isinstance(expression, And) else " | "
            joined = sign.join(sorted((text(part, True) for part in expression.args), key=lambda t: t.strip("~(")))
            return f"({joined})" if inside else joined
        return str(expression)

    return text(found, False)
