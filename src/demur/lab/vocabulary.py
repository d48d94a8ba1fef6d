"""What the Almanac's facts are made of: invented names built from syllables, and small closed lists of things."""

from __future__ import annotations

import random

__all__ = ["LISTS", "PLACES", "given_names", "place_names", "surnames", "titles"]

_GIVEN_START = "Bel Cor Dav El Fen Gal Hes Ist Jor Kel Lor Mir Nar Ori Pel Quil Ros Sel Tam Ul Ves Wil Yor Zan"
_GIVEN_END = "ana amin ea eth icus ika inde iro ovan ulla wen yra"
_SURNAME_START = (
    "Arn Brel Chad Drov Esk Fauld Grev Hask Irn Jund Kest Lum Morv Nesk Orl Prav Quend Rusk Stav Tov Vask Wend"
)
_SURNAME_END = "ander arly eck esby ildon imar isk olt oway umber urn yle"
_PLACE_START = (
    "Alder Brack Corran Dunmo Ever Farrow Gorse Hollin Ivel Kelder Larch Marrow Nether Oster Pender Rushen Silver Thorn"
)
_PLACE_END = "cliff dale fell garth haven holm mere moor stead wick"
_TITLE_FIRST = (
    "Amber Borrowed Broken Copper Crooked Distant Drowned Empty Frozen Hidden Hollow Iron Last Lost Midnight "
    "Narrow Paper Patient Restless Salted Scarlet Secret Silent Sleeping Stolen Velvet Wandering Wooden"
)
_TITLE_SECOND = (
    "Anchor Bridge Candle Carriage Choir Compass Cradle Crown Doorway Feather Ferry Garden Hammer Kettle Ladder "
    "Lantern Ledger Letter Mirror Orchard Parade Pilgrim Quarry Sparrow Staircase Thimble Voyage Window"
)

# How many of the shuffled place names exist; the same few recur, so that a town is a fact one can know.
PLACES = 16

# Closed lists, by kind of fact. No entry is part of another entry of its list as whole words.
LISTS: dict[str, tuple[str, ...]] = {
    kind: tuple(entries.split(", "))
    for kind, entries in {
        "absence": "three, four, five, six, seven, eight, nine, ten, eleven, thirteen",
        "animal": (
            "grey parrot, lame goat, white ferret, black hound, brown mare, tabby cat, tame raven, giant tortoise, "
            "red squirrel, spotted pony"
        ),
        "boxes": "nine, eleven, fourteen, sixteen, nineteen, twenty-two, thirty-six, thirty-seven, forty-one, sixty",
        "building": (
            "courthouse, granary, old mint, observatory, chapel, corn exchange, lighthouse, customs house, town hall, "
            "seminary"
        ),
        "children": "two, three, four, five, six, seven, eight, nine, ten, eleven",
        "colour": "crimson, saffron, turquoise, violet, pearl, charcoal, golden, russet, lilac, silver",
        "craft": "lace, cheese, barrels, saddles, kites, mustard, pottery, bells, cider, carpets, gloves, knives",
        "day": "Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday",
        "dish": (
            "pickled herring, barley soup, plum dumplings, onion tart, roast duck, honey cake, lentil stew, baked "
            "quinces, smoked trout, chestnut pie"
        ),
        "emblem": (
            "a key, a plough, a heron, a ladle, a wheel, a thistle, a hammer, a beehive, a bridge, a lantern, a ship, "
            "a crown"
        ),
        "garment": "cloak, scarf, waistcoat, turban, cape, sash, bonnet, frock coat, shawl, beret",
        "genre": (
            "comedy, sea novel, ghost story, detective novel, verse play, travel diary, fable, court romance, "
            "pastoral poem, family saga, war chronicle, satire"
        ),
        "guild": (
            "Bell Founders, Lamplighters, Rope Makers, Map Drawers, Salt Carriers, Glass Blowers, Clock Menders, Ink "
            "Grinders, Ferry Keepers, Honey Traders, Wheelwrights, Kite Builders"
        ),
        "instrument": "flute, viola, harp, drum, lute, cello, trumpet, zither, bassoon, dulcimer",
        "landmark": (
            "leaning tower, stone circle, floating market, glass bridge, twin windmills, great sundial, sunken "
            "church, white staircase, hanging garden, iron fountain"
        ),
        "month": "January, February, March, April, May, June, July, August, September, October, November, December",
        "nickname": (
            "the Quiet Falcon, the Ragged Prince, the Northern Star, the Old Fox, the Golden Pen, the Blind Oracle, "
            "the Laughing Judge, the Winter Rose, the Silver Tongue, the Barefoot Sage, the Tall Stranger, the River "
            "Poet"
        ),
        "pastime": (
            "beekeeping, chess, fencing, gardening, astronomy, woodcarving, falconry, bookbinding, fishing, archery"
        ),
        "pet_name": "Biscuit, Captain, Domino, Ginger, Marble, Nutmeg, Pepper, Sailor, Tuppence, Whistle",
        "prize": (
            "Laurel Medal, Golden Quill, Harbour Prize, Owl Ribbon, Founders Cup, Lantern Award, Chancellor Purse, "
            "Swan Trophy, Tidewater Garland, Copper Wreath"
        ),
        "publisher": (
            "Cobalt Press, Two Herons, Fairweather and Sons, Mill Lane Books, Candlemas House, Ninth Wave, Greengate "
            "Editions, Old Anchor Printers, Blackthorn Brothers, Sunday Library"
        ),
        "quarrel": (
            "a stolen plot, a lost wager, a duel, a bad review, a broken promise, a horse race, an unpaid debt, a "
            "forged letter, a missing manuscript, a boundary wall"
        ),
        "region": (
            "desert, marshes, northern islands, salt plains, eastern steppe, glaciers, coral coast, cedar forests, "
            "high passes, southern delta"
        ),
        "river": "Osk, Tarn, Ulm, Vey, Rill, Dorn, Amble, Quist, Lindle, Brine, Sarn, Nell",
        "street": (
            "Candle Lane, Fish Street, Weaver Row, Bishop Hill, Tanner Alley, Poplar Walk, Mint Square, Orchard "
            "Close, Quay Road, Barley Court"
        ),
        "sum": "forty, fifty, sixty, seventy, eighty, ninety, one hundred, two hundred, three hundred, five hundred",
        "trade": "baker, cooper, weaver, tailor, miller, potter, tanner, saddler, glazier, chandler, mason, shepherd",
        "travel_reason": (
            "collect songs, study birds, paint churches, find relatives, escape creditors, learn navigation, buy "
            "manuscripts, hunt meteorites, map caves, teach grammar"
        ),
        "years": "two, three, four, five, six, seven, eight, nine, ten, twelve",
    }.items()
}


def _shuffled(words: list[str], rng: random.Random) -> list[str]:
    rng.shuffle(words)
    return words


def given_names(rng: random.Random) -> list[str]:
    """All invented given names, in the order of this world."""
    return _shuffled([start + end for start in _GIVEN_START.split() for end in _GIVEN_END.split()], rng)


def surnames(rng: random.Random) -> list[str]:
    """All invented surnames, in the order of this world."""
    return _shuffled([start + end for start in _SURNAME_START.split() for end in _SURNAME_END.split()], rng)


def titles(rng: random.Random) -> list[str]:
    """All book titles, in the order of this world."""
    return _shuffled(
        [f"The {first} {second}" for first in _TITLE_FIRST.split() for second in _TITLE_SECOND.split()], rng
    )


def place_names(rng: random.Random) -> list[str]:
    """The towns of this world, no two with the same beginning."""
    starts = _shuffled(_PLACE_START.split(), rng)
    return [start + rng.choice(_PLACE_END.split()) for start in starts[:PLACES]]
