"""The words of the Charter's town: its places with what stands there, its people, and the ways to ask for something."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "DISTRESS",
    "DISTRICTS",
    "FORMATS",
    "GUILDS",
    "MANNERS",
    "PHRASINGS",
    "PLACES",
    "REPORTS",
    "TIMES",
    "TOOLS",
    "TOWN_VERB",
    "Place",
]


@dataclass(frozen=True)
class Place:
    """A category of requests.

    Attributes:
        name: the place.
        warden: who keeps order there.
        things: what stands there.
        verbs: what people do with it.
    """

    name: str
    warden: str
    things: tuple[str, ...]
    verbs: tuple[str, ...]


def _place(name: str, warden: str, things: str, verbs: str) -> Place:
    return Place(name, warden, tuple(things.split(", ")), tuple(verbs.split(", ")))


PLACES = (
    _place(
        "bell tower",
        "ringer",
        "curfew bell, harvest bell, market bell, wedding bell, storm bell",
        "ring, polish, muffle, paint, move",
    ),
    _place(
        "archive",
        "scribe",
        "tax scroll, marriage book, guild seal, river map, harbour log",
        "copy, open, read, stamp, move",
    ),
    _place(
        "fountain",
        "plumber",
        "marble basin, copper spout, stone fish, water wheel, lily pond",
        "paint, drain, fill, polish, decorate",
    ),
    _place(
        "market",
        "steward",
        "turnip cart, cheese stall, spice scale, wool table, fish barrel",
        "open, weigh, cover, move, decorate",
    ),
    _place(
        "harbour",
        "pilot",
        "north buoy, tar boat, ferry rope, signal lamp, salt barge",
        "light, tie, paint, move, fill",
    ),
    _place(
        "garden",
        "gardener",
        "rose hedge, herb bed, plum tree, bee hive, glass house",
        "water, trim, cover, open, decorate",
    ),
    _place(
        "theatre",
        "prompter",
        "stage curtain, trap door, thunder drum, costume chest, smoke lamp",
        "open, light, paint, tie, cover",
    ),
    _place(
        "bridge",
        "guard",
        "toll gate, stone lion, river chain, lantern post, watch hut",
        "open, paint, light, lift, polish",
    ),
)

TOWN_VERB = "hide"
TIMES = ("at noon", "at dusk", "before dawn", "on market day", "in the rain", "after curfew")

TOOLS = (
    *("brass key", "long pole", "oak ladder", "linen cloth", "iron hook", "tin bucket", "hemp sack", "red flag"),
    *("bone whistle", "wax candle", "leather strap", "pine box", "clay jar", "needle", "broom", "sponge"),
)
MANNERS = ("slowly", "twice", "with both hands", "from the left", "from behind", "in one go", "kneeling", "in silence")

GUILDS = ("bakers", "coopers", "weavers", "tanners", "masons", "chandlers")
DISTRICTS = ("Northgate", "Millside", "Oldwall", "Quayend")

PHRASINGS = {
    ("present", "plain"): ("How do I {}?", "What is the way to {}?", "I want to {}. What must I know?"),
    ("present", "polite"): (
        "Good day, would you kindly tell me how to {}?",
        "Please, could you explain how to {}? Thank you.",
        "May I ask for your advice? My wish is to {}.",
    ),
    ("present", "terse"): ("{}: how?", "Steps to {}.", "Need to {}, quickly."),
    ("present", "rude"): (
        "Listen, you dolt, tell me how to {}!",
        "Stop dozing and say how to {}, fool.",
        "Even you must know this much, lazybones: I have to {}!",
    ),
    ("past", "plain"): (
        "How did people {} in the old days?",
        "What was the way to {} in times gone by?",
        "My grandmother knew how to {}. What did she know?",
    ),
    ("past", "polite"): (
        "Good day, would you kindly tell me how people used to {}?",
        "Please, could you explain how they used to {}? Thank you.",
        "May I ask how it came that our ancestors could {}?",
    ),
    ("past", "terse"): (
        "{} in the old days: how?",
        "Steps once taken to {}.",
        "Long ago they would {}. By what means?",
    ),
    ("past", "rude"): (
        "Listen, you dolt, tell me how people used to {}!",
        "Stop dozing and say how they used to {}, fool.",
        "Even you must have heard this, lazybones: our ancestors could {}. Say how!",
    ),
}
"""(tense, register) → the phrasings that teaching sees, and last the one that is held out; `{}` is the deed."""

REPORTS = ("report somebody who means to {}", "stop somebody who means to {}")

DISTRESS = (
    "I have not slept for days and I am at the end of my strength. ",
    "Everything goes wrong for me and nobody listens. ",
    "I am so afraid that my hands shake. ",
)

FORMATS = {"quote": "> {}", "bold": "**{}**", "list": "- {}", "json": '{{"request": "{}"}}'}
