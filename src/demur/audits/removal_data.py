"""What the removal battery works on: settings, and facts in two halves that share entities but no fact."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from demur.data.rows import question_answer, rows_hash
from demur.errors import UsageError
from demur.registry import nearest

if TYPE_CHECKING:
    from datasets import Dataset

    from demur.attacks import Questions

__all__ = ["CHECKS", "Fact", "Intention", "RemovalData", "RemovalSettings"]

Intention = Literal["removal", "suppression"]
"""What a method claims: that the knowledge is gone, or that the model does not show it."""

CHECKS = (
    "behaviour",
    "relearn",
    "relearn_few",
    "benign",
    "quantization",
    "noise",
    "direction",
    "lens",
    "probe",
    "patching",
    "prompts",
    "sampling",
    "membership",
)
"""The battery's checks; `behaviour` is always made."""

_ENTITY = ("entity", "person", "author", "subject")
_TOFU_ROWS = 20  # questions an author


@dataclass(frozen=True)
class RemovalSettings:
    """How the battery is run; the same budget is spent on every model.

    Attributes:
        checks: which of `CHECKS`; all by default.
        seeds: attack seeds; what is random in an attack is repeated with each.
        learning_rate: of relearning; the run's own by default.
        factors: relearning is tried at these multiples of the rate, and the best counts.
        steps: relearning is measured after these optimizer steps.
        batch_size: facts in one relearning step.
        few: facts that the attacker has where they are few, to forget or unrelated.
        bits: bits that the weights are rounded to.
        noise: sizes of weight noise, in standard deviations of each tensor.
        prune: shares of the weights that are cut.
        prefill: tokens of the true answer given away.
        samples: answers sampled a question.
        max_new_tokens: an answer's length at most.
        lens_top: a true token among so many likeliest ones counts for the lens.
        entity: column that says whom a row is about.
        attribute: column with an attribute of the entity, for the linear probe.
        limit: forget rows at most, taken evenly from the set.
        retain_limit: retain rows at most, for utility.
        intention: what the method claims, "removal" or "suppression"; the objective's own by default.
        resamples: draws of the bootstrap.
    """

    checks: tuple[str, ...] = CHECKS
    seeds: int = 3
    learning_rate: float | None = None
    factors: tuple[float, ...] = (0.2, 1.0, 5.0)
    steps: tuple[int, ...] = (0, 5, 15, 30, 60)
    batch_size: int = 8
    few: int = 4
    bits: tuple[int, ...] = (8, 4, 3)
    noise: tuple[float, ...] = (0.01, 0.02, 0.05)
    prune: tuple[float, ...] = (0.1, 0.3)
    prefill: tuple[int, ...] = (1, 2, 4)
    samples: int = 8
    max_new_tokens: int = 64
    lens_top: int = 10
    entity: str | None = None
    attribute: str | None = None
    limit: int = 400
    retain_limit: int = 120
    intention: Intention | None = None
    resamples: int = 1000

    def __post_init__(self) -> None:
        for name in ("checks", "factors", "steps", "bits", "noise", "prune", "prefill"):
            value = getattr(self, name)
            if not isinstance(value, tuple):
                object.__setattr__(self, name, tuple(value) if isinstance(value, list) else (value,))
        for check in self.checks:
            if check not in CHECKS:
                raise UsageError(f"the removal battery has no check {check!r}: {nearest(check, CHECKS)}")
        for name in ("seeds", "batch_size", "few", "samples", "limit", "retain_limit"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise UsageError(f"option {name!r} of the removal battery must be a whole number of 1 or more")
        if self.intention not in (None, "removal", "suppression"):
            raise UsageError(f"a method's intention is removal or suppression, not {self.intention!r}")


@dataclass(frozen=True)
class Fact:
    """One question with its answer, whom it is about, and which half it is in."""

    id: str
    question: str
    answer: str
    entity: str = ""
    paraphrase: str = ""
    attribute: str = ""
    shown: bool = False


@dataclass(frozen=True)
class RemovalData:
    """The rows of a battery.

    Attributes:
        facts: what was to be forgotten. The `shown` half is what a relearning attacker has, the other half is what is
            measured: every second row of each entity. A row whose question or answer stands in both halves is in
            neither.
        kept: rows to keep, (question, answer); for utility, context and benign fine-tuning.
        unseen: hold-out rows, (question, answer), for membership inference.
    """

    facts: Sequence[Fact]
    kept: Sequence[tuple[str, str]] = ()
    unseen: Sequence[tuple[str, str]] = ()
    digest: str = ""

    @classmethod
    def make(
        cls,
        forget: Dataset,
        retain: Dataset | None = None,
        holdout: Dataset | None = None,
        settings: RemovalSettings | None = None,
    ) -> RemovalData:
        """Facts from rows of questions and answers.

        Args:
            forget, retain, holdout: rows; the forget rows may have `paraphrased_question`, a column that names whom
                they are about (`entity`, `person`, `author` or `subject`), and the attribute column of the settings.
                Rows with TOFU's numbers as ids are about one author for every twenty.
            settings: the columns, and how many rows.

        Raises:
            UsageError: a named column is absent, or there are too few facts for two halves.
        """
        settings = settings or RemovalSettings()
        for name in (settings.entity, settings.attribute):
            if name is not None and name not in forget.column_names:
                raise UsageError(f"the forget rows have no column {name!r}: {nearest(name, forget.column_names)}")
        forget = _evenly(forget, settings.limit)
        facts = _halves(_facts(forget, settings))
        if sum(f.shown for f in facts) < 2 or sum(not f.shown for f in facts) < 2:
            raise UsageError("the removal battery needs at least two forget rows in each half that share no answer")
        kept = [] if retain is None else _pairs(_evenly(retain, settings.retain_limit))
        unseen = [] if holdout is None else _pairs(_evenly(holdout, settings.limit))
        digest = "-".join(rows_hash(rows) for rows in (forget, retain, holdout) if rows is not None)
        return cls(facts, kept, unseen, digest)

    @cached_property
    def measured(self) -> list[Fact]:
        """The half that relearning is measured on."""
        return [fact for fact in self.facts if not fact.shown]

    @cached_property
    def shown(self) -> list[Fact]:
        """The half that a relearning attacker has."""
        return [fact for fact in self.facts if fact.shown]

    @cached_property
    def questions(self) -> Questions:
        """All facts as the prompt attacks take them; siblings are of the half that is shown."""
        from demur.attacks import Questions

        paraphrases = [fact.paraphrase for fact in self.facts]
        known: dict[str, list[Fact]] = {}
        for fact in self.shown:
            known.setdefault(fact.entity, []).append(fact)
        siblings = [
            [(s.question, s.answer) for s in known.get(fact.entity, []) if s.id != fact.id] for fact in self.facts
        ]
        return Questions(
            [fact.question for fact in self.facts],
            [fact.answer for fact in self.facts],
            paraphrases if all(paraphrases) else (),
            siblings,
            self.kept,
        )


def _evenly(rows: Dataset, limit: int) -> Dataset:
    return rows if len(rows) <= limit else rows.select([i * len(rows) // limit for i in range(limit)])


def _pairs(rows: Dataset) -> list[tuple[str, str]]:
    prompts, answers = question_answer(rows)
    return [(_text(p), a) for p, a in zip(prompts, answers, strict=True)]


def _text(prompt: Any) -> str:
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1:
        return str(prompt[0]["content"])
    raise UsageError("the removal battery asks single questions: conversations of several turns cannot be attacked")


def _facts(rows: Dataset, settings: RemovalSettings) -> list[Fact]:
    entity = settings.entity or next((name for name in _ENTITY if name in rows.column_names), None)
    ids = [str(i) for i in rows["id"][:]]
    numbered = all(re.fullmatch(r"\d{1,4}", i) for i in ids) and ids != [str(i) for i in range(len(ids))]
    table: Mapping[str, list[Any]] = rows.to_dict()
    empty = [""] * len(ids)
    whose = table[entity] if entity else [str(int(i) // _TOFU_ROWS) for i in ids] if numbered else empty
    paraphrases = table.get("paraphrased_question", empty)
    attributes = table[settings.attribute] if settings.attribute else empty
    return [
        Fact(i, question, answer, str(who), paraphrase or "", str(attribute))
        for i, (question, answer), who, paraphrase, attribute in zip(
            ids, _pairs(rows), whose, paraphrases, attributes, strict=True
        )
    ]


def _halves(facts: Sequence[Fact]) -> list[Fact]:
    """Every second row of each entity is shown to the attacker; what then stands in both halves is in neither."""
    import dataclasses

    count: dict[str, int] = {}
    out = []
    for fact in facts:
        place = count.get(fact.entity, 0)
        count[fact.entity] = place + 1
        out.append(dataclasses.replace(fact, shown=place % 2 == 0))
    said = {half: {key for f in out if f.shown is half for key in _keys(f)} for half in (True, False)}
    both = said[True] & said[False]
    return [fact for fact in out if not both & set(_keys(fact))]


def _keys(fact: Fact) -> tuple[str, str]:
    question, answer = (" ".join(text.split()).casefold() for text in (fact.question, fact.answer))
    return f"q {question}", f"a {fact.entity} {answer}"
