"""Whether an answer is the known one: the final answer is found, tidied and compared as text, number and formula.

The work is bounded by the answer's length, not by a clock: what would take longer counts as not equal.
"""

from __future__ import annotations

import ast
import cmath
import math
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

__all__ = ["check_answer", "extract_answer", "normalise_answer", "same_answer"]

_LONGEST = 200  # characters of a final answer that is compared as more than text
_BITS = 4096  # size of an exact number at most
_SPOKEN = re.compile(r"(?:final answer|answer)\s*(?:is|:|=)\s*:?\s*(.+)", re.IGNORECASE)
_HASHES = re.compile(r"####\s*(.+)")
_THOUSANDS = re.compile(r"[-+]?\d{1,3}(?:,\d{3})+(?:\.\d+)?%?")
_TOKEN = re.compile(r"\d+(?:\.\d*)?|\.\d+|sqrt|pi|[a-z]|\*\*|[-+*/()]")
_POINTS = (Fraction(37, 11), Fraction(-53, 17), Fraction(19, 29))  # where formulas are compared

Number = Fraction | complex


class _Incomparable(ValueError):
    """A text is no formula, or one whose value is too large to compute."""


def check_answer(answer: str, known: str) -> bool:
    """Whether an answer's final answer is the known answer's.

    Args:
        answer: what was written, reasoning and all.
        known: the right answer, with or without reasoning.
    """
    return same_answer(extract_answer(answer), extract_answer(known))


def extract_answer(text: str) -> str:
    r"""The final answer in a text: the last \boxed{…}, else what follows the last #### or "the answer is", else all.

    Args:
        text: reasoning that ends in an answer, or the answer alone.
    """
    start = text.rfind("\\boxed")
    if start >= 0 and (inside := _braced(text, start + len("\\boxed"))) is not None:
        return inside.strip()
    for pattern in (_HASHES, _SPOKEN):
        if found := pattern.findall(text):
            return re.split(r"\.(?:\s|$)", found[-1].strip())[0].strip()
    return text.strip()


def normalise_answer(text: str) -> str:
    r"""An answer without what does not change it: dollar signs, spacing, \left, \text{…}, thousands' commas, case."""
    text = re.sub(r"\\(?:text|mathrm|mbox|textbf)\s*\{([^{}]*)\}", r"\1", text.strip().lower())
    text = re.sub(r"\\(?:left|right|displaystyle|[,;:! ])", "", text).replace("\\$", "").replace("$", "")
    text = re.sub(r"\\[dt]frac", r"\\frac", text).replace("{,}", ",")
    text = re.sub(r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}", text)
    text = re.sub(r"^\s*[a-z]\s*=\s*(?!=)", "", text)
    text = re.sub(r"\s+", " ", text).strip().rstrip(".").strip()
    return text.replace(",", "") if _THOUSANDS.fullmatch(text) else text  # 100,200 within a set is two numbers


def same_answer(first: str, second: str) -> bool:
    """Whether two final answers mean the same.

    They are compared as text, then as sets or tuples, then as numbers and formulas: 1/2, 0.5 and \\frac12 are the same,
    {1, 2} and {2, 1}, x(x+1) and x^2+x. Formulas are evaluated at three points, exactly where they are rational.
    """
    a, b = normalise_answer(first), normalise_answer(second)
    if a.replace(" ", "") == b.replace(" ", ""):
        return bool(a)
    if max(len(a), len(b)) > _LONGEST:
        return False
    left, right = _members(a), _members(b)
    if left is not None or right is not None:
        return left is not None and right is not None and _same_members(left, right)
    try:
        f, g = _formula(a), _formula(b)
        if f[1] != g[1]:
            return False
        return all(_close(f[0](point), g[0](point)) for point in (_POINTS if f[1] else _POINTS[:1]))
    except (_Incomparable, ZeroDivisionError, OverflowError):
        return False


def _braced(text: str, start: int) -> str | None:
    """What stands between the brace at `start` and the one that closes it."""
    if text[start : start + 1] != "{":
        return None
    depth = 0
    for place in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[start + 1 : place]
    return None


def _members(text: str) -> tuple[str, list[str]] | None:
    """The brackets (none for sets and bare lists) and members of a collection; None for anything else."""
    text = text.replace("\\{", "{").replace("\\}", "}")
    kind, inside = "", text
    if len(text) > 1 and text[0] + text[-1] in ("{}", "()", "[]", "(]", "[)"):
        kind, inside = text[0] + text[-1], text[1:-1]
    members, depth = [""], 0
    for character in inside:
        depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(character, 0)
        if depth < 0:
            return None
        if character == "," and depth == 0:
            members.append("")
        else:
            members[-1] += character
    if len(members) == 1 and kind != "{}":
        return None
    return ("" if kind == "{}" else kind), [member.strip() for member in members]


def _same_members(left: tuple[str, list[str]], right: tuple[str, list[str]]) -> bool:
    if left[0] != right[0] or len(left[1]) != len(right[1]):
        return False
    if left[0]:
        return all(same_answer(a, b) for a, b in zip(left[1], right[1], strict=True))
    rest = list(right[1])
    for member in left[1]:
        match = next((place for place, other in enumerate(rest) if same_answer(member, other)), None)
        if match is None:
            return False
        rest.pop(match)
    return True


def _formula(text: str) -> tuple[Callable[[Fraction], Number], str]:
    """A formula as a function of one point, and the letters in it."""
    percent = text.endswith("%")
    for pattern, plain in ((r"\\%|%$", ""), (r"\\(?:cdot|times)", "*"), (r"\\div", "/"), (r"\\pi", "pi")):
        text = re.sub(pattern, plain, text)
    for _ in range(text.count("\\")):
        text = re.sub(r"\\frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r"((\1)/(\2))", text)
        text = re.sub(r"\\sqrt\s*\{([^{}]*)\}", r"sqrt(\1)", text)
        text = re.sub(r"\\sqrt\s*(\d)", r"sqrt(\1)", text)
    text = text.replace("^", "**").replace("{", "(").replace("}", ")").replace(" ", "")
    words = re.findall(r"[a-z]+", re.sub("sqrt|pi", " ", text))
    # A word is no product of its letters.
    if not text or any(len(word) > (3 if re.search(r"\d", text) else 1) for word in words):
        raise _Incomparable(text)
    tokens = _TOKEN.findall(text)
    if "".join(tokens) != text:
        raise _Incomparable(text)
    joined = []
    for before, token in zip(["+", *tokens], tokens, strict=False):
        ends = before[-1].isalnum() or before[-1] in ").)"
        if ends and before != "sqrt" and (token == "(" or token[0].isalnum()):
            joined.append("*")
        joined.append(token.lstrip("0") or "0" if token.isdecimal() else token)
    try:
        tree = ast.parse("".join(joined), mode="eval").body
    except (SyntaxError, RecursionError, MemoryError, ValueError):
        raise _Incomparable(text) from None
    letters = sorted(set("".join(words)))
    scale = Fraction(1, 100) if percent else Fraction(1)

    def value(point: Fraction) -> Number:
        env = {letter: point + Fraction(place * place, 7) for place, letter in enumerate(letters)}
        return _value(tree, env) * scale

    return value, "".join(letters)


def _value(node: Any, env: dict[str, Fraction]) -> Number:
    match node:
        case ast.Constant():
            return Fraction(str(node.value))
        case ast.Name(id="pi"):
            return complex(math.pi)
        case ast.Name(id=name) if name in env:
            return env[name]
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=inner):
            found = _value(inner, env)
            return -found if isinstance(sign, ast.USub) else found
        case ast.Call(func=ast.Name(id="sqrt"), args=[inner]):
            return cmath.sqrt(complex(_value(inner, env)))
        case ast.BinOp(left=left, op=op, right=right):
            return _binary(op, _value(left, env), _value(right, env))
    raise _Incomparable("no formula")


def _binary(op: ast.operator, a: Number, b: Number) -> Number:
    match op:
        case ast.Add():
            return a + b
        case ast.Sub():
            return a - b
        case ast.Mult():
            return a * b
        case ast.Div():
            return a / b
        case ast.Pow():
            if isinstance(a, Fraction) and isinstance(b, Fraction) and b.denominator == 1:
                if _size(a) * abs(b) > _BITS:
                    raise _Incomparable("too large")
                return Fraction(a ** int(b))
            return complex(a) ** complex(b)
    raise _Incomparable("no formula")


def _size(number: Fraction) -> int:
    return max(number.numerator.bit_length(), number.denominator.bit_length())


def _close(a: Number, b: Number) -> bool:
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a == b
    return cmath.isclose(complex(a), complex(b), rel_tol=1e-9, abs_tol=1e-12)
