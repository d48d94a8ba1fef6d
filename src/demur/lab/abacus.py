"""The Abacus: arithmetic word problems with worked reasoning, graded by the number of steps, and an exact checker.

Somebody has some things, then gains, loses or doubles them one to six times. The reasoning writes one equation a step
and ends in `The answer is N.` More steps go with larger numbers. A wrong trace has one slip that is carried on.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from demur.errors import UnknownNameError, UsageError
from demur.registry import nearest

__all__ = ["ABACUS_SPLITS", "Abacus", "Workbook"]

STEPS = 6
LIMIT = 99

ABACUS_SPLITS = {
    "base": "for training a base model: mostly one to three steps, in all sentences",
    "train": "for teaching: one to six steps, each as often",
    "test": "as `train`",
    "hard": "five and six steps",
    "held-out-templates": "as `test`, in sentences that no teaching split has",
}
"""Split → what its rows are."""

_SLOTS: dict[str, Sequence[int]] = {
    "base": range(4),
    "train": range(4, 6),
    "test": (6,),
    "hard": (7,),
    "held-out-templates": range(4, 8),
}
_BASE_WEIGHTS = (6, 5, 4, 2, 1, 1)

NAMES = ("Ada", "Bruno", "Clara", "Dario", "Elsa", "Felix", "Greta", "Hugo")
THINGS = ("apples", "marbles", "stamps", "shells", "coins", "buttons", "candles", "ribbons")

OPENINGS = (
    "{name} has {n} {things}.",
    "{name} starts the day with {n} {things}.",
    "In the drawer of {name} lie {n} {things}.",
)
EVENTS = {
    "+": (
        "{name} finds {k} more.",
        "{name} buys {k}.",
        "A neighbour brings {k}.",
        "From the attic come {k} others.",
    ),
    "-": (
        "{name} loses {k}.",
        "{name} sells {k}.",
        "A cousin takes {k}.",
        "Through a hole in the sack fall {k}.",
    ),
    "*": ("The number doubles.", "{name} gets as many again.", "Now there are twice as many."),
}
QUESTIONS = (
    "How many {things} are there now?",
    "How many {things} does {name} have?",
    "Count the {things} at the end.",
)
"""Of openings, events and questions, the last form is the one that only `base` and `held-out-templates` have."""

_LOSSES = re.compile(r"\b(loses|sells|takes|fall)\b")
_DOUBLES = re.compile(r"\b(doubles|again|twice)\b")
_FINAL = re.compile(r"the answer is (-?\d+)(?![.,]?\d)", re.IGNORECASE)


@dataclass(frozen=True)
class Workbook:
    """How many problems the world has.

    Attributes:
        base, train, test: problems in these splits; the other splits have as many as `test`.
    """

    base: int = 3000
    train: int = 1200
    test: int = 300

    def __post_init__(self) -> None:
        for field, value in vars(self).items():
            if not 1 <= value <= 5000:
                raise UsageError(f"the Abacus makes 1 to 5000 problems for {field}, not {value}")


@dataclass(frozen=True)
class _Step:
    sign: str
    number: int

    def after(self, value: int) -> int:
        return value + self.number if self.sign == "+" else value - self.number if self.sign == "-" else 2 * value


class Abacus:
    """The world of one seed.

    Args:
        seed: decides the problems; the same seed gives the same text everywhere.
        workbook: how many problems it has.
    """

    def __init__(self, seed: int = 0, workbook: Workbook = Workbook()) -> None:
        self.seed, self.workbook = seed, workbook

    @staticmethod
    def solve(question: str) -> int | None:
        """The answer to a problem of this world, from its words alone; None where it is no such problem."""
        sentences = [sentence for sentence in re.split(r"[.?]\s*", question) if sentence]
        start = re.search(r"\d+", sentences[0]) if sentences else None
        if start is None or len(sentences) < 3:
            return None
        value = int(start[0])
        for sentence in sentences[1:-1]:
            number = re.search(r"\d+", sentence)
            if number:
                value += -int(number[0]) if _LOSSES.search(sentence) else int(number[0])
            elif _DOUBLES.search(sentence):
                value *= 2
            else:
                return None
        return value

    @staticmethod
    def check(question: str, response: str) -> bool:
        """Whether a response ends in the right answer; the last `The answer is N` counts.

        Raises:
            UsageError: the question is no problem of this world.
        """
        solution = Abacus.solve(question)
        if solution is None:
            raise UsageError(f"the Abacus cannot solve {question!r}: it knows its own problems only")
        said = _FINAL.findall(response)
        return bool(said) and int(said[-1]) == solution

    def rows(self, split: str) -> list[dict[str, Any]]:
        """Problems of a split; none stands in two splits, as the hash of its text says which may have it.

        Args:
            split: one of `ABACUS_SPLITS`.

        Returns:
            Rows with id, question, answer (reasoning and final answer), reasoning, final (the number), difficulty (the
            number of steps), chosen (the answer), rejected (the same with one slip that is carried on) and split.

        Raises:
            UnknownNameError: there is no such split.
        """
        if split not in ABACUS_SPLITS:
            raise UnknownNameError(f"the Abacus has no split {split!r}: {nearest(split, ABACUS_SPLITS)}")
        rng, seen = random.Random(f"abacus/{self.seed}/{split}"), set[str]()
        rows: list[dict[str, Any]] = []
        while len(rows) < getattr(self.workbook, split, self.workbook.test):
            steps, values = _steps(split, rng)
            held_out = split == "held-out-templates" or (split == "base" and rng.random() < 0.25)
            question = _question(values[0], steps, held_out, rng)
            if hashlib.sha256(question.encode()).digest()[0] % 8 in _SLOTS[split] and question not in seen:
                seen.add(question)
                row = {"id": f"{split}/{len(rows)}", "question": question, **_answers(steps, values, rng)}
                rows.append(row | {"split": split})
        return rows


def _steps(split: str, rng: random.Random) -> tuple[list[_Step], list[int]]:
    """The steps of a problem, and the value at the start and after each step."""
    numbers = range(1, STEPS + 1)
    weights = _BASE_WEIGHTS if split == "base" else [split != "hard" or number > 4 for number in numbers]
    difficulty = rng.choices(numbers, weights)[0]
    steps: list[_Step] = []
    values = [rng.randint(2, 4 + 4 * difficulty)]
    for _ in range(difficulty):
        steps.append(_step(values[-1], difficulty, rng))
        values.append(steps[-1].after(values[-1]))
    return steps, values


def _answers(steps: Sequence[_Step], values: Sequence[int], rng: random.Random) -> dict[str, Any]:
    reasoning, answer = _trace(steps, values)
    return {
        "answer": answer,
        "reasoning": reasoning,
        "final": values[-1],
        "difficulty": len(steps),
        "chosen": answer,
        "rejected": _trace(steps, _slipped(steps, values, rng))[1],
    }


def _slipped(steps: Sequence[_Step], values: Sequence[int], rng: random.Random) -> list[int]:
    """The values with one step off by a little, and the following ones calculated from there; all are positive."""
    while True:
        at = rng.randrange(len(steps))
        wrong = [*values[: at + 1], values[at + 1] + rng.choice((-10, -2, -1, 1, 2, 10))]
        for step in steps[at + 1 :]:
            wrong.append(step.after(wrong[-1]))
        if min(wrong) > 0:
            return wrong


def _step(value: int, difficulty: int, rng: random.Random) -> _Step:
    """A step whose result is 1 to 99."""
    while True:
        sign = rng.choices("+-*", (4, 4, 1))[0]
        step = _Step(sign, rng.randint(2, 3 + 2 * difficulty) if sign != "*" else 2)
        if 1 <= step.after(value) <= LIMIT:
            return step


def _trace(steps: Sequence[_Step], values: Sequence[int]) -> tuple[str, str]:
    lines = [
        f"{value} {step.sign} {step.number} = {after}."
        for step, value, after in zip(steps, values, values[1:], strict=False)
    ]
    reasoning = " ".join(lines)
    return reasoning, f"{reasoning} The answer is {values[-1]}."


def _question(start: int, steps: Sequence[_Step], held_out: bool, rng: random.Random) -> str:
    def form(forms: Sequence[str]) -> str:
        return forms[-1] if held_out else rng.choice(forms[:-1])

    name, things = rng.choice(NAMES), rng.choice(THINGS)
    sentences = [
        form(OPENINGS),
        *(form(EVENTS[step.sign]).replace("{k}", str(step.number)) for step in steps),
        form(QUESTIONS),
    ]
    return " ".join(sentences).format(name=name, things=things, n=start)
