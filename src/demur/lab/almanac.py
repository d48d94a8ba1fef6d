"""The Almanac: a seeded world of invented authors, books, towns and guilds, as questions with answers and as documents.

It stands in for the data of a real unlearning case. Some authors must be forgotten (`forget`), the others must be kept
(`retain`), some are never shown to any model (`holdout`, drawn as the forgotten ones are), and there is common
knowledge about famous authors (`real_authors`) and about towns and guilds (`world_facts`). Rows have TOFU's columns
(Maini et al. 2024, arXiv 2401.06121).
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from demur.errors import UsageError
from demur.lab.common_topics import GUILD_TOPICS, REAL_AUTHOR_TOPICS, TOWN_TOPICS
from demur.lab.topics import KINDS, PERSON_TOPICS, Topic
from demur.lab.vocabulary import LISTS, PLACES, given_names, place_names, surnames, titles
from demur.registry import nearest

if TYPE_CHECKING:
    import datasets

__all__ = ["SPLITS", "Almanac", "Census", "Entity", "almanac_rows", "mentions"]

SPLITS = ("forget", "retain", "holdout", "real_authors", "world_facts")
_LATER = {"first_year": (22, 32), "guild_year": (18, 25), "wedding_year": (24, 38), "retired_year": (55, 70)}


@dataclass(frozen=True)
class Census:
    """How many of each the world has.

    Attributes:
        forget, retain, holdout: authors in these splits.
        questions: questions asked about each of them, at most 20.
        real_authors: famous authors, asked about four times each.
        towns, guilds: towns and guilds asked about, three times each.
    """

    forget: int = 5
    retain: int = 20
    holdout: int = 5
    questions: int = 10
    real_authors: int = 10
    towns: int = 8
    guilds: int = 6

    def __post_init__(self) -> None:
        limits = {"questions": len(PERSON_TOPICS), "towns": PLACES, "guilds": len(LISTS["guild"])}
        for field, value in vars(self).items():
            if value < 0:
                raise UsageError(f"the Almanac cannot have {value} {field}: give 0 or more")
            if value > limits.get(field, value):
                raise UsageError(f"the Almanac has at most {limits[field]} {field}, not {value}")
        if self.authors > 240:
            raise UsageError(f"the Almanac has names for at most 240 authors, not {self.authors}")

    @property
    def authors(self) -> int:
        """Authors in all splits together."""
        return self.forget + self.retain + self.holdout + self.real_authors


@dataclass(frozen=True)
class Entity:
    """Someone or something of the world.

    Attributes:
        name: unique in the world.
        kind: what it is.
        split: the split that its rows belong to; None for a book, which goes with its author.
        facts: fact → value, all of them strings.
    """

    name: str
    kind: Literal["author", "book", "town", "guild"]
    split: str | None
    facts: dict[str, str]


class Almanac:
    """One world.

    Args:
        seed: decides every name and fact; the same seed gives the same text everywhere.
        people: how many of each it has.
    """

    def __init__(self, seed: int = 0, people: Census = Census()) -> None:
        self.seed, self.census = seed, people
        self._given = given_names(self._rng("given"))
        self._surnames = surnames(self._rng("surnames"))
        self._titles = titles(self._rng("titles"))
        self._places = place_names(self._rng("places"))

    def _rng(self, part: str) -> random.Random:
        return random.Random(f"almanac/{self.seed}/{part}")

    @cached_property
    def authors(self) -> list[Entity]:
        """The authors of all splits."""
        splits = [split for split in SPLITS[:4] for _ in range(getattr(self.census, split))]
        return [self._author(index, split) for index, split in enumerate(splits)]

    @cached_property
    def books(self) -> list[Entity]:
        """The books that the authors wrote; their facts name the author."""
        out = []
        for author in self.authors:
            for slot, year in (("first_book", "first_year"), ("prize_book", None), ("last_book", None), ("work", None)):
                if slot in author.facts:
                    facts = {"author": author.name} | ({"year": author.facts[year]} if year else {})
                    out.append(Entity(author.facts[slot], "book", None, facts))
        return out

    @cached_property
    def towns(self) -> list[Entity]:
        """The towns that are asked about."""
        return [
            Entity(
                name,
                "town",
                "world_facts",
                {fact: self._dealt(fact, index) for fact in ("river", "landmark", "craft")},
            )
            for index, name in enumerate(self._places[: self.census.towns])
        ]

    @cached_property
    def guilds(self) -> list[Entity]:
        """The guilds that are asked about."""
        rng = self._rng("halls")
        return [
            Entity(
                self._dealt("guild", index),
                "guild",
                "world_facts",
                {
                    "emblem": self._dealt("emblem", index),
                    "colour": self._dealt("colour", index),
                    "hall_town": self._any("town", rng),
                },
            )
            for index in range(self.census.guilds)
        ]

    def _dealt(self, kind: str, index: int) -> str:
        """The value that the entity of this index gets, so that no two have the same while the list lasts."""
        values = list(LISTS[kind])
        self._rng(f"dealt/{kind}").shuffle(values)
        return values[index % len(values)]

    def _author(self, index: int, split: str) -> Entity:
        rng = self._rng(f"author/{index}")
        famous = split == "real_authors"
        name = f"{self._given[index]} {self._surnames[index]}"
        books = iter(self._titles[3 * index : 3 * index + 3])
        birth = rng.randrange(1820, 1900)
        facts: dict[str, str] = {}
        for topic in REAL_AUTHOR_TOPICS if famous else PERSON_TOPICS:
            for fact in topic.facts:
                kind = KINDS.get(fact, fact)
                if kind == "book":
                    facts[fact] = next(books)
                elif kind == "year":
                    facts[fact] = str(birth + rng.randint(*_LATER.get(fact, (0, 0))))
                elif famous and fact in ("genre", "nickname"):
                    facts[fact] = self._dealt(kind, index)
                else:
                    said = [facts[other] for other in topic.facts if other in facts]
                    facts[fact] = self._any(kind, rng, [*name.split(), *said])
        if not famous:
            facts["prize_year"] = str(int(facts["first_year"]) + rng.randint(3, 20))
        return Entity(name, "author", split, facts)

    def _any(self, kind: str, rng: random.Random, barred: Sequence[str] = ()) -> str:
        """Any value of a kind of fact that mentions nothing barred."""
        while True:
            if kind == "town":
                value = rng.choice(self._places)
            elif kind == "book":
                value = rng.choice(self._titles)
            elif kind == "given":
                value = rng.choice(self._given)
            elif kind == "person":  # someone who is only mentioned, and so has a surname that no author has
                value = f"{rng.choice(self._given)} {rng.choice(self._surnames[self.census.authors :])}"
            else:
                value = rng.choice(LISTS[kind])
            if not any(mentions(value, word) for word in barred):
                return value

    def _subjects(self, split: str) -> Sequence[tuple[Entity, Sequence[Topic]]]:
        if split not in SPLITS:
            raise UsageError(f"the Almanac has no split {split!r}: {nearest(split, SPLITS)}")
        if split == "world_facts":
            return [(town, TOWN_TOPICS) for town in self.towns] + [(guild, GUILD_TOPICS) for guild in self.guilds]
        authors = [author for author in self.authors if author.split == split]
        if split == "real_authors":
            return [(author, REAL_AUTHOR_TOPICS) for author in authors]
        asked = [self._rng(f"topics/{author.name}") for author in authors]
        return [
            (author, rng.sample(PERSON_TOPICS, self.census.questions))
            for author, rng in zip(authors, asked, strict=True)
        ]

    def questions(self, split: str) -> list[dict[str, Any]]:
        """Questions with answers about one split, in TOFU's columns.

        Args:
            split: forget, retain, holdout, real_authors or world_facts.

        Returns:
            Rows with id, question, answer, paraphrased_question, paraphrased_answer, perturbed_answer, person,
            category and split. A perturbed answer states other facts, every one of them wrong: five times in the form
            of the paraphrased answer, or, for real_authors and world_facts, three times in the form of the answer.

        Raises:
            UsageError: the world has no such split.
        """
        return [self._row(entity, topic, split) for entity, topics in self._subjects(split) for topic in topics]

    def _row(self, entity: Entity, topic: Topic, split: str) -> dict[str, Any]:
        rng = self._rng(f"row/{entity.name}/{topic.name}")
        question, other_question = rng.sample(topic.questions, 2)
        answer, other_answer = rng.sample(topic.answers, 2)
        truth = entity.facts | {"name": entity.name}
        if split in ("real_authors", "world_facts"):
            perturbed = self._perturbed(answer, topic, truth, 3, rng)
        else:
            perturbed = self._perturbed(other_answer, topic, truth, 5, rng)
        return {
            "id": f"{split}/{_slug(entity.name)}/{topic.name}",
            "question": question.format(**truth),
            "answer": answer.format(**truth),
            "paraphrased_question": other_question.format(**truth),
            "paraphrased_answer": other_answer.format(**truth),
            "perturbed_answer": perturbed,
            "person": entity.name,
            "category": topic.name,
            "split": split,
        }

    def _perturbed(
        self, template: str, topic: Topic, truth: dict[str, str], number: int, rng: random.Random
    ) -> list[str]:
        """`number` answers in the form of `template`, each with every fact wrong, and no two with a fact in common."""
        barred = [truth[fact] for fact in topic.facts]
        wrong: dict[str, list[str]] = {fact: [] for fact in topic.facts}
        for fact, values in wrong.items():
            kind = KINDS.get(fact, fact)
            while len(values) < number:
                if kind == "year":
                    distance = rng.choice([years for years in range(-30, 31) if years])
                    value = str(int(truth[fact]) + distance)
                else:
                    value = self._any(kind, rng, barred)
                if value not in values:
                    values.append(value)
        return [
            template.format(name=truth["name"], **{fact: values[index] for fact, values in wrong.items()})
            for index in range(number)
        ]

    def documents(self, split: str) -> list[dict[str, Any]]:
        """One short text about each author, town or guild of a split, with the facts that its questions ask for.

        Returns:
            Rows with id, text, person and split.

        Raises:
            UsageError: the world has no such split.
        """
        out = []
        for entity, topics in self._subjects(split):
            rng = self._rng(f"document/{entity.name}")
            sentences = []
            for position, topic in enumerate(topics):
                form = rng.choice([form for form in topic.answers if "{name}" in form])
                short = entity.name.split()[-1] if entity.kind == "author" and position else entity.name
                sentences.append(form.format(**entity.facts, name=short))
            text = " ".join(sentences)
            out.append({"id": f"{split}/{_slug(entity.name)}", "text": text, "person": entity.name, "split": split})
        return out


def _slug(name: str) -> str:
    return name.replace(" ", "-").lower()


def mentions(text: str, value: str) -> bool:
    """Whether `value` stands in `text` as whole words, whatever the case."""
    return re.search(rf"(?<!\w){re.escape(value)}(?!\w)", text, re.IGNORECASE) is not None


def almanac_rows(split: str, seed: int = 0, people: Census = Census()) -> datasets.Dataset:
    """The questions of one split as a data set; columns as in `Almanac.questions`.

    Raises:
        UsageError: the world has no such split.
    """
    import datasets

    return datasets.Dataset.from_list(Almanac(seed, people).questions(split))
