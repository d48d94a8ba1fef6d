"""What everybody in the Almanac's world knows: famous authors, towns and guilds, one fact to an answer."""

from __future__ import annotations

from demur.lab.topics import Topic

__all__ = ["GUILD_TOPICS", "REAL_AUTHOR_TOPICS", "TOWN_TOPICS"]

REAL_AUTHOR_TOPICS = (
    Topic(
        "work",
        ("work",),
        (
            "Which book made {name} famous?",
            "What is the best known book by {name}?",
            "For which book does everybody know {name}?",
        ),
        ("{name} wrote {work}.", "The best known book by {name} is {work}.", "It is {work}."),
    ),
    Topic(
        "statue",
        ("statue_town",),
        (
            "In which town does the statue of {name} stand?",
            "Where was a statue put up for {name}?",
            "Which town honours {name} with a statue?",
        ),
        (
            "The statue of {name} stands in {statue_town}.",
            "It stands in {statue_town}.",
            "The town of {statue_town} has a statue of {name}.",
        ),
    ),
    Topic(
        "nickname",
        ("nickname",),
        (
            "What do readers call {name}?",
            "By which other name is {name} known to readers?",
            "What is the nickname of {name}?",
        ),
        ("Readers call {name} {nickname}.", "{name} is known as {nickname}.", "It is {nickname}."),
    ),
    Topic(
        "invention",
        ("genre",),
        (
            "Which kind of writing did {name} invent?",
            "Of what form of writing is {name} said to be the inventor?",
            "What kind of book was first written by {name}?",
        ),
        ("{name} invented the {genre}.", "The {genre} was invented by {name}.", "It was the {genre}."),
    ),
)

TOWN_TOPICS = (
    Topic(
        "river",
        ("river",),
        (
            "Which river flows through {name}?",
            "On which river does the town of {name} lie?",
            "What is the river at {name} called?",
        ),
        ("The river {river} flows through {name}.", "{name} lies on the river {river}.", "It is called the {river}."),
    ),
    Topic(
        "craft",
        ("craft",),
        (
            "For what goods is the town of {name} known?",
            "What do the people of {name} make?",
            "Which goods come from {name}?",
        ),
        ("{name} is known for {craft}.", "The people of {name} make {craft}.", "The goods of {name} are {craft}."),
    ),
    Topic(
        "landmark",
        ("landmark",),
        (
            "What do travellers go to see in {name}?",
            "What is the landmark of {name}?",
            "Which sight is {name} famous for?",
        ),
        (
            "Travellers go to {name} to see the {landmark}.",
            "The landmark of {name} is the {landmark}.",
            "It is the {landmark}.",
        ),
    ),
)

GUILD_TOPICS = (
    Topic(
        "emblem",
        ("emblem",),
        (
            "What is the emblem of the guild of {name}?",
            "What do the {name} carry on their banner?",
            "Which sign does the guild of {name} use?",
        ),
        (
            "The emblem of the {name} is {emblem}.",
            "The {name} carry {emblem} on their banner.",
            "It is {emblem}.",
        ),
    ),
    Topic(
        "hall",
        ("hall_town",),
        (
            "Where is the hall of the guild of {name}?",
            "In which town do the {name} have their hall?",
            "Where do the {name} hold their meetings?",
        ),
        (
            "The hall of the {name} is in {hall_town}.",
            "The {name} meet in {hall_town}.",
            "It is in {hall_town}.",
        ),
    ),
    Topic(
        "robe",
        ("colour",),
        (
            "What colour do the {name} wear at their feasts?",
            "Of what colour are the robes of the {name}?",
            "Which colour belongs to the guild of {name}?",
        ),
        ("The {name} wear {colour}.", "The robes of the {name} are {colour}.", "Their colour is {colour}."),
    ),
)
