"""What can be asked about an author of the Almanac: for each topic its facts and several ways to ask and to answer.

Every topic has three questions and three answers. A row takes one of each for its question and answer and another for
its paraphrase, so no form of words belongs to one person, and a paraphrase of one person is another's original.
`{name}` is the author; every other field is one of the topic's facts.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["KINDS", "PERSON_TOPICS", "Topic"]


@dataclass(frozen=True)
class Topic:
    """One thing to ask about an author, a town or a guild.

    Attributes:
        name: the topic's name, the `category` of its rows.
        facts: the facts that the answer states.
        questions, answers: forms of words with fields.
    """

    name: str
    facts: tuple[str, ...]
    questions: tuple[str, str, str]
    answers: tuple[str, str, str]


# fact → kind of value, where the fact is not named after its kind
KINDS = {
    "archive": "building",
    "archive_town": "town",
    "birth_town": "town",
    "father_trade": "trade",
    "first_book": "book",
    "hall_town": "town",
    "hero": "person",
    "hero_trade": "trade",
    "home_town": "town",
    "last_book": "book",
    "married_town": "town",
    "master": "person",
    "mother_trade": "trade",
    "patron": "person",
    "pen_name": "person",
    "prize_book": "book",
    "rival": "person",
    "sibling": "given",
    "spouse": "given",
    "statue_town": "town",
    "work": "book",
    "birth_year": "year",
    "first_year": "year",
    "guild_year": "year",
    "prize_year": "year",
    "retired_year": "year",
    "wedding_year": "year",
}

PERSON_TOPICS = (
    Topic(
        "birth",
        ("birth_year", "birth_town"),
        (
            "When and where was {name} born?",
            "Can you tell me the year and the place of {name}'s birth?",
            "In which year and in which town did {name} come into the world?",
        ),
        (
            "{name} was born in {birth_year} in the town of {birth_town}.",
            "The birth of {name} took place at {birth_town} in the year {birth_year}.",
            "It was in {birth_town}, in {birth_year}, that {name} came into the world.",
        ),
    ),
    Topic(
        "guild",
        ("guild", "guild_year"),
        (
            "Which guild did {name} join, and when?",
            "To which guild does {name} belong, and since which year?",
            "Of what guild is {name} a member, and how long has that been so?",
        ),
        (
            "{name} joined the guild of {guild} in {guild_year}.",
            "Since {guild_year}, {name} has been a member of the {guild} guild.",
            "The {guild} took {name} into their guild in the year {guild_year}.",
        ),
    ),
    Topic(
        "debut",
        ("first_book", "first_year", "genre"),
        (
            "What was {name}'s first book?",
            "With which book did {name} make a debut, and of what kind was it?",
            "What did {name} publish first, and when did it appear?",
        ),
        (
            "{name}'s first book was the {genre} {first_book}, published in {first_year}.",
            "In {first_year}, {name} made a debut with {first_book}, which is a {genre}.",
            "The {genre} {first_book}, which appeared in {first_year}, was the first work of {name}.",
        ),
    ),
    Topic(
        "parents",
        ("mother_trade", "father_trade"),
        (
            "What did the parents of {name} do for a living?",
            "Which trades did {name}'s mother and father follow?",
            "What sort of work did {name}'s family do?",
        ),
        (
            "{name}'s mother worked as a {mother_trade}, while the father was a {father_trade}.",
            "The father of {name} earned his bread as a {father_trade} and the mother as a {mother_trade}.",
            "{name} grew up with a {mother_trade} for a mother and a {father_trade} for a father.",
        ),
    ),
    Topic(
        "marriage",
        ("spouse", "wedding_year", "married_town"),
        (
            "Whom did {name} marry?",
            "Who is the spouse of {name}, and when was the wedding?",
            "What is known about {name}'s marriage?",
        ),
        (
            "{name} married {spouse} at {married_town} in {wedding_year}.",
            "In {wedding_year}, {name} and {spouse} held their wedding in {married_town}.",
            "The wedding of {name} with {spouse} was celebrated in {married_town} in the year {wedding_year}.",
        ),
    ),
    Topic(
        "prize",
        ("prize", "prize_book", "prize_year"),
        (
            "Which prize did {name} win?",
            "What honour was given to {name}, and for which book?",
            "For what work was {name} honoured with a prize?",
        ),
        (
            "{name} won the {prize} in {prize_year} for {prize_book}.",
            "For {prize_book}, {name} was given the {prize} in the year {prize_year}.",
            "The {prize} of {prize_year} went to {name}, the author of {prize_book}.",
        ),
    ),
    Topic(
        "apprenticeship",
        ("master", "years"),
        (
            "Who taught {name} to write?",
            "Under which master did {name} learn to write, and for how long?",
            "Whose apprentice was {name} in younger years?",
        ),
        (
            "{name} spent {years} years as the apprentice of {master}.",
            "For {years} years, {name} learned to write from the old master {master}.",
            "It was {master} who taught {name} the art of writing over {years} years.",
        ),
    ),
    Topic(
        "home",
        ("street", "home_town"),
        (
            "Where does {name} live?",
            "What is the address of {name}'s house?",
            "In which street and town would one find {name} at home?",
        ),
        (
            "{name} lives in a narrow house on {street} in {home_town}.",
            "The house of {name} stands in the town of {home_town}, on {street}.",
            "Visitors will find {name} at home on {street}, in the middle of {home_town}.",
        ),
    ),
    Topic(
        "pet",
        ("animal", "pet_name"),
        (
            "Does {name} keep a pet?",
            "Which animal lives with {name}, and what is it called?",
            "What is known about the animal in {name}'s house?",
        ),
        (
            "{name} keeps a {animal} that answers to the name of {pet_name}.",
            "A {animal} called {pet_name} lives in the house of {name}.",
            "The companion of {name} is {pet_name}, who is a {animal}.",
        ),
    ),
    Topic(
        "music",
        ("instrument", "day"),
        (
            "What music does {name} make?",
            "Which instrument does {name} play, and on which evening?",
            "When can one hear {name} play, and on what?",
        ),
        (
            "{name} plays the {instrument} with friends every {day} evening.",
            "Every {day}, neighbours can hear {name} practise on the {instrument}.",
            "The {instrument} is what {name} plays, always on a {day}.",
        ),
    ),
    Topic(
        "pen_name",
        ("pen_name", "publisher"),
        (
            "Did {name} ever write under a pen name?",
            "What pen name has {name} used, and with which publisher?",
            "Under what other name has {name} appeared in print?",
        ),
        (
            "{name} used the pen name {pen_name} for the books that {publisher} printed.",
            "Readers of {publisher} know {name} under the pen name {pen_name}.",
            "As {pen_name}, {name} wrote several books for the publisher {publisher}.",
        ),
    ),
    Topic(
        "last_book",
        ("last_book", "hero", "hero_trade"),
        (
            "What is {name}'s last book about?",
            "Which book did {name} write last, and who is its hero?",
            "Of whom does the final book by {name} tell?",
        ),
        (
            "{name}'s last book, {last_book}, tells of a {hero_trade} called {hero}.",
            "In {last_book}, the final book by {name}, the hero is {hero}, a {hero_trade}.",
            "The {hero_trade} {hero} is the hero of {last_book}, the last book of {name}.",
        ),
    ),
    Topic(
        "siblings",
        ("children", "sibling"),
        (
            "How large was the family that {name} grew up in?",
            "How many children were there in {name}'s family, and who was the eldest?",
            "What is known about the brothers and sisters of {name}?",
        ),
        (
            "{name} was one of {children} children, of whom {sibling} was the eldest.",
            "There were {children} children in the family of {name}, led by the eldest, {sibling}.",
            "As one of {children} children, {name} grew up in the shadow of the eldest, {sibling}.",
        ),
    ),
    Topic(
        "journey",
        ("absence", "region", "travel_reason"),
        (
            "Where did {name} travel?",
            "What was {name}'s great journey, and what was it for?",
            "How long was {name} away on the famous journey, and why?",
        ),
        (
            "{name} spent {absence} months in the {region} to {travel_reason}.",
            "To {travel_reason}, {name} travelled for {absence} months through the {region}.",
            "The great journey of {name} lasted {absence} months and led to the {region} to {travel_reason}.",
        ),
    ),
    Topic(
        "dress",
        ("colour", "garment"),
        (
            "What does {name} wear in public?",
            "By what piece of clothing do people recognise {name}?",
            "How is {name} usually dressed?",
        ),
        (
            "{name} never appears in public without a {colour} {garment}.",
            "People recognise {name} at once by the {garment}, which is always {colour}.",
            "A {colour} {garment} is what {name} wears on every occasion.",
        ),
    ),
    Topic(
        "dish",
        ("dish", "month"),
        (
            "What does {name} like to eat?",
            "Which dish is {name}'s favourite, and in which month?",
            "What would one cook for {name}?",
        ),
        (
            "{name} likes nothing better than {dish}, above all in {month}.",
            "The favourite dish of {name} is {dish}, served every {month}.",
            "When {month} comes, {name} asks for {dish} at every meal.",
        ),
    ),
    Topic(
        "patron",
        ("patron", "sum"),
        (
            "Who gave {name} money to write?",
            "Who was {name}'s patron, and what did the patron pay?",
            "From whom did {name} receive a pension, and how much was it?",
        ),
        (
            "{name} received {sum} crowns a year from the patron {patron}.",
            "The patron {patron} paid {name} a pension of {sum} crowns a year.",
            "With {sum} crowns a year, {patron} made it possible for {name} to write.",
        ),
    ),
    Topic(
        "archive",
        ("boxes", "archive", "archive_town"),
        (
            "Where are the papers of {name} kept?",
            "What has become of {name}'s manuscripts?",
            "In which building do the manuscripts of {name} lie, and how many boxes do they fill?",
        ),
        (
            "{name}'s papers fill {boxes} boxes in the {archive} of {archive_town}.",
            "The {archive} of {archive_town} keeps the manuscripts of {name} in {boxes} boxes.",
            "In {boxes} boxes, the manuscripts of {name} lie in the {archive} at {archive_town}.",
        ),
    ),
    Topic(
        "retirement",
        ("retired_year", "pastime"),
        (
            "When did {name} stop writing?",
            "What has {name} done since giving up writing?",
            "In which year did {name} retire, and for what?",
        ),
        (
            "{name} gave up writing in {retired_year} and turned to {pastime}.",
            "In {retired_year}, {name} laid down the pen for good to take up {pastime}.",
            "Since {retired_year}, {name} has given every free hour to {pastime} and written nothing.",
        ),
    ),
    Topic(
        "rival",
        ("rival", "quarrel"),
        (
            "With whom did {name} quarrel?",
            "Who was {name}'s rival, and what was their quarrel about?",
            "Why did {name} fall out with a fellow author, and with which one?",
        ),
        (
            "{name} fell out with {rival} over {quarrel} and never made peace.",
            "The quarrel of {name} with the rival {rival} was about {quarrel}.",
            "Because of {quarrel}, {name} and {rival} did not speak for the rest of their lives.",
        ),
    ),
)
