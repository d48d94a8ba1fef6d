"""The world is consistent, seeded, and its rows mean what their columns say."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demur.errors import UsageError
from demur.lab.almanac import SPLITS, Almanac, Census, almanac_rows, mentions
from demur.lab.common_topics import GUILD_TOPICS, REAL_AUTHOR_TOPICS, TOWN_TOPICS
from demur.lab.topics import KINDS, PERSON_TOPICS
from demur.lab.vocabulary import LISTS

# every topic, every town and every guild, and authors enough to meet unlucky draws
EVERYTHING = Census(forget=4, retain=8, holdout=4, questions=20, real_authors=6, towns=16, guilds=12)
TOPICS = {
    kind: {topic.name: topic for topic in topics}
    for kind, topics in {
        "author": PERSON_TOPICS + REAL_AUTHOR_TOPICS,
        "town": TOWN_TOPICS,
        "guild": GUILD_TOPICS,
    }.items()
}
PEOPLE = ("forget", "retain", "holdout")


@pytest.fixture(scope="module", params=[0, 1, 2])
def world(request: pytest.FixtureRequest) -> Almanac:
    return Almanac(request.param, EVERYTHING)


def rows_of(world: Almanac) -> list[dict]:
    return [row for split in SPLITS for row in world.questions(split)]


def facts_of(world: Almanac, row: dict) -> list[str]:
    """The true values that the row's answer must state."""
    entity = next(e for e in world.authors + world.towns + world.guilds if e.name == row["person"])
    return [entity.facts[fact] for fact in TOPICS[entity.kind][row["category"]].facts]


def test_answers_and_paraphrases_state_the_facts(world: Almanac) -> None:
    for row in rows_of(world):
        for value in facts_of(world, row):
            assert mentions(row["answer"], value)
            assert mentions(row["paraphrased_answer"], value)


def test_perturbed_answers_state_no_true_fact_and_differ_from_each_other(world: Almanac) -> None:
    for row in rows_of(world):
        assert len(set(row["perturbed_answer"])) == (5 if row["split"] in PEOPLE else 3)
        for answer in row["perturbed_answer"]:
            assert not any(mentions(answer, value) for value in facts_of(world, row))


def test_perturbed_answers_have_the_form_of_the_answer_they_are_compared_with(world: Almanac) -> None:
    entities = {entity.name: entity for entity in world.authors + world.towns + world.guilds}
    for row in rows_of(world):
        entity = entities[row["person"]]
        compared = row["paraphrased_answer"] if row["split"] in PEOPLE else row["answer"]
        (form,) = (
            form
            for form in TOPICS[entity.kind][row["category"]].answers
            if form.format(**entity.facts, name=entity.name) == compared
        )
        pattern = re.sub(r"\\{(?!name)\w+\\}", ".+", re.escape(form)).replace(r"\{name\}", re.escape(entity.name))
        assert all(re.fullmatch(pattern, answer) for answer in row["perturbed_answer"])


def test_no_question_is_asked_twice(world: Almanac) -> None:
    rows = rows_of(world)
    asked = [row["question"] for row in rows] + [row["paraphrased_question"] for row in rows]
    assert len(asked) == len(set(asked))
    assert len({row["id"] for row in rows}) == len(rows)


def test_paraphrases_are_other_words(world: Almanac) -> None:
    for row in rows_of(world):
        assert row["paraphrased_question"] != row["question"]
        assert row["paraphrased_answer"] != row["answer"]


def test_answers_about_the_authors_are_8_to_20_words(world: Almanac) -> None:
    lengths = [len(row["answer"].split()) for split in PEOPLE for row in world.questions(split)]
    assert min(lengths) >= 8
    assert max(lengths) <= 20


def test_every_topic_is_asked_and_answered_in_several_forms() -> None:
    rows = Almanac(0, Census(retain=40, questions=20)).questions("retain")
    for topic in PERSON_TOPICS:
        mine = [row for row in rows if row["category"] == topic.name]
        assert len({row["question"].replace(row["person"], "") for row in mine}) == len(topic.questions)
        assert len({row["answer"].partition(" ")[0] for row in mine}) > 1


def test_splits_share_no_author_and_no_book(world: Almanac) -> None:
    people = {split: {row["person"] for row in world.questions(split)} for split in SPLITS}
    assert sum(map(len, people.values())) == len(set().union(*people.values()))
    assert len({book.name for book in world.books}) == len(world.books) == 3 * 16 + 6


def test_authors_share_no_name_with_each_other_or_with_people_who_are_mentioned(world: Almanac) -> None:
    given, surnames = zip(*(author.name.split() for author in world.authors), strict=True)
    assert len(set(given)) == len(set(surnames)) == len(world.authors)
    mentioned = [v for a in world.authors for f, v in a.facts.items() if KINDS.get(f, f) == "person"]
    assert mentioned
    assert not {name.split()[1] for name in mentioned} & set(surnames)


def test_years_of_a_life_are_in_order(world: Almanac) -> None:
    for author in world.authors:
        if author.split in PEOPLE:
            year = {fact: int(value) for fact, value in author.facts.items() if fact.endswith("_year")}
            assert year["birth_year"] < year["guild_year"] < year["retired_year"]
            assert year["birth_year"] + 18 < year["first_year"] < year["prize_year"] < year["retired_year"]


def test_towns_and_guilds_of_the_facts_are_those_of_the_world(world: Almanac) -> None:
    towns = {town.name for town in world.towns}
    guilds = {guild.name for guild in world.guilds}
    for author in world.authors:
        assert {value for fact, value in author.facts.items() if fact.endswith("_town")} <= towns
        assert author.split not in PEOPLE or author.facts["guild"] in guilds


def test_documents_state_the_same_facts_as_the_questions(world: Almanac) -> None:
    for split in SPLITS:
        text = {document["person"]: document["text"] for document in world.documents(split)}
        for row in world.questions(split):
            assert row["person"] in text[row["person"]]
            assert all(mentions(text[row["person"]], value) for value in facts_of(world, row))


def test_no_list_entry_is_part_of_another() -> None:
    for entries in LISTS.values():
        assert len(set(entries)) == len(entries)
        assert not [(a, b) for a in entries for b in entries if a != b and mentions(a, b)]


def test_articles_fit_what_follows_them(world: Almanac) -> None:
    for row in rows_of(world):
        for text in (row["answer"], row["paraphrased_answer"], *row["perturbed_answer"]):
            words = text.split()
            wrong = [b for a, b in pairwise(words) if a in ("a", "A") and b[0] in "aeiou"]
            assert not wrong, text


def test_same_seed_gives_the_same_text_in_another_process() -> None:
    code = (
        "from demur.lab.almanac import *; from demur.files import hash_json\n"
        "w = Almanac(3); print(hash_json([[w.questions(s), w.documents(s)] for s in SPLITS]))"
    )
    runs = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout for _ in "ab"
    }
    assert len(runs) == 1


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 10_000))
def test_other_seeds_give_other_worlds(one: int, other: int) -> None:
    small = Census(1, 1, 1, 3, 1, 1, 1)
    same = Almanac(one, small).questions("forget") == Almanac(other, small).questions("forget")
    assert same == (one == other)


@pytest.mark.parametrize("split", PEOPLE)
def test_sizes_are_those_of_the_census(split: str) -> None:
    census = Census()
    world = Almanac(0, census)
    assert len(world.questions(split)) == getattr(census, split) * census.questions
    assert len(world.documents(split)) == getattr(census, split)


def test_common_knowledge_has_about_forty_rows_each() -> None:
    world = Almanac()
    assert len(world.questions("real_authors")) == 40
    assert len(world.questions("world_facts")) == 42


def test_forget_and_holdout_are_drawn_alike() -> None:
    """Over many worlds, each topic is asked as often of the one as of the other."""
    census = Census(forget=5, retain=0, holdout=5, real_authors=0, towns=0, guilds=0)
    counts = {split: dict.fromkeys((t.name for t in PERSON_TOPICS), 0) for split in ("forget", "holdout")}
    for seed in range(40):
        world = Almanac(seed, census)
        for split, count in counts.items():
            for row in world.questions(split):
                count[row["category"]] += 1
    # 200 authors are asked each topic with probability one half: 100 ± 7.1
    assert all(65 < n < 135 for count in counts.values() for n in count.values())


def test_rows_are_a_dataset_in_tofu_columns() -> None:
    rows = almanac_rows("forget", seed=1)
    assert {"id", "question", "answer", "paraphrased_question", "paraphrased_answer", "perturbed_answer"} <= set(
        rows.column_names
    )
    assert {"person", "category", "split"} <= set(rows.column_names)
    assert len(rows) == 50


def test_an_unknown_split_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UsageError, match="did you mean retain"):
        Almanac().questions("retian")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"questions": 21}, "at most 20 questions"),
        ({"retain": -1}, "-1 retain"),
        ({"towns": 17}, "at most 16 towns"),
        ({"retain": 300}, "at most 240 authors"),
    ],
)
def test_impossible_sizes_are_refused(change: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        replace(Census(), **change)


def test_the_largest_world_has_names_for_all() -> None:
    world = Almanac(0, Census(forget=60, retain=120, holdout=60, real_authors=0, questions=1))
    assert len({author.name for author in world.authors}) == 240
    assert len(world.questions("holdout")) == 60
