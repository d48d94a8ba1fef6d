"""From a loss, written as a ratio of polynomials in probabilities, back to the structure it means."""

from __future__ import annotations

import ast
from fractions import Fraction

from demur.objectives.preference_logic.formula import assignments
from demur.objectives.preference_logic.structure import PreferenceStructure

__all__ = ["NotExpressibleError", "decompile"]

Polynomial = dict[tuple[tuple[str, int], ...], Fraction]
"""Monomial, as (variable, power) pairs, → coefficient."""


class NotExpressibleError(ValueError):
    """A loss that no formulas mean; the message says why."""


def decompile(top: str, bottom: str) -> PreferenceStructure:
    """The structure whose loss has ρ = log(top / bottom).

    A polynomial that is of degree at most 1 in every variable is the weighted count of a formula exactly when its
    value is 0 or 1 wherever every probability is 0 or 1; the formula holds where the value is 1.

    Args:
        top, bottom: polynomials in w and l (probabilities of winner and loser), rw and rl (of the reference), and
            copies such as w2; for instance "w*(1-l)" and "l*(1-w)" for ORPO.

    Raises:
        ValueError: a text is no polynomial.
        NotExpressibleError: no formulas mean this loss.
    """
    sides = {"top": _polynomial(top), "bottom": _polynomial(bottom)}
    found = {name for side in sides.values() for monomial in side for name, _ in monomial}
    known = ("W", "L", "RW", "RL")
    atoms = (*known[:2], *(a for a in known[2:] if a in found), *sorted(found - set(known)))
    good, bad = (_rows(name, side, atoms) for name, side in sides.items())
    return PreferenceStructure.between(atoms, good, bad)


def _rows(side: str, polynomial: Polynomial, atoms: tuple[str, ...]) -> list[bool]:
    for monomial in polynomial:
        for name, power in monomial:
            if power > 1:
                raise NotExpressibleError(
                    f"{side}: {name.lower()} occurs to the power {power}, and a formula counts an answer once: "
                    f"write copies of it, {name.lower()}*{name.lower()}2"
                )
    rows = []
    for world in assignments(atoms):
        value = sum(c for monomial, c in polynomial.items() if all(world[name] for name, _ in monomial))
        if value not in (0, 1):
            where = ", ".join(f"{name.lower()}={int(true)}" for name, true in world.items())
            raise NotExpressibleError(f"{side} is {value} at {where}: the count of a formula is 0 or 1 there")
        rows.append(value == 1)
    return rows


def _polynomial(text: str) -> Polynomial:
    """Read a polynomial; only numbers, names and + - * / ** are understood, nothing is run."""
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError):
        raise ValueError(f"{text!r} is no polynomial: write for instance w*(1-l)") from None

    def fail(node: ast.AST) -> ValueError:
        return ValueError(f"{text!r}: {ast.unparse(node)!r} has no place in a polynomial")

    def read(node: ast.expr) -> Polynomial:
        match node:
            case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
                return {(): Fraction(str(value))}
            case ast.Name(id=name):
                return {((name.removeprefix("p_").upper(), 1),): Fraction(1)}
            case ast.UnaryOp(op=ast.USub(), operand=inner):
                return {monomial: -c for monomial, c in read(inner).items()}
            case ast.BinOp(left=left, op=ast.Add() | ast.Sub() as sign, right=right):
                out = dict(read(left))
                for monomial, c in read(right).items():
                    out[monomial] = out.get(monomial, Fraction(0)) + (c if isinstance(sign, ast.Add) else -c)
                return {monomial: c for monomial, c in out.items() if c}
            case ast.BinOp(left=left, op=ast.Mult(), right=right):
                return _product(read(left), read(right))
            case ast.BinOp(left=left, op=ast.Pow(), right=ast.Constant(value=int() as power)) if 0 <= power <= 8:
                out = {(): Fraction(1)}
                for _ in range(power):
                    out = _product(out, read(left))
                return out
            case ast.BinOp(left=left, op=ast.Div(), right=right):
                divisor = read(right)
                if set(divisor) != {()}:
                    raise fail(node)
                return {monomial: c / divisor[()] for monomial, c in read(left).items()}
        raise fail(node)

    return read(tree)


def _product(left: Polynomial, right: Polynomial) -> Polynomial:
    out: Polynomial = {}
    for one, a in left.items():
        for other, b in right.items():
            powers = dict(one)
            for name, power in other:
                powers[name] = powers.get(name, 0) + power
            monomial = tuple(sorted(powers.items()))
            out[monomial] = out.get(monomial, Fraction(0)) + a * b
    return {monomial: c for monomial, c in out.items() if c}
