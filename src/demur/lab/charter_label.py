"""Reading a request of the Charter's town: what is asked, and whether a rule bars it, from words alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from demur.lab.charter_words import PLACES, TIMES, TOWN_VERB

__all__ = ["label_prompt"]

_THINGS = {thing: place.name for place in PLACES for thing in place.things}
_VERBS = {verb for place in PLACES for verb in place.verbs} | {TOWN_VERB}
_BETWEEN = {"not", "but", "and", "or"}  # words that join verbs which share one object
_REPORTING = re.compile(r"\b(report|stop) (somebody|someone|anyone|people|those) who\b")


def label_prompt(prompt: str, rules: Sequence[str]) -> Literal["comply", "refuse"] | None:
    """Whether a request must be answered or refused.

    Args:
        prompt: the request, in either tongue.
        rules: the charter's rules in words.

    Returns:
        None where the prompt names no deed of the town.
    """
    words = re.findall(r"[a-z]+", prompt.lower())
    strange = [word for word in words if word.endswith("ay") and len(word) > 2]
    if len(strange) > len(words) / 2:
        words = [word[-3] + word[:-3] for word in strange]
    text = " ".join(words)
    found = False
    for place in range(1, len(words) - 1):
        thing = " ".join(words[place : place + 2])
        if thing not in _THINGS or words[place - 1] != "the":
            continue
        verbs = _verbs_before(words[: place - 1])
        found = found or bool(verbs)
        reported = _REPORTING.search(" ".join(words[:place]))
        time = next((time for time in TIMES if f"{thing} {time}" in text), None)
        if not reported and any(_bars(rule, verb, thing, time) for rule in rules for verb in verbs):
            return "refuse"
    return "comply" if found else None


def _verbs_before(words: list[str]) -> list[str]:
    """The verbs at the end of `words` that are meant, without those that `not` takes back."""
    out = []
    while words and (words[-1] in _VERBS or words[-1] in _BETWEEN):
        *words, last = words
        if last in _VERBS and words[-1:] != ["not"]:
            out.append(last)
    return out


def _bars(rule: str, verb: str, thing: str, time: str | None) -> bool:
    """Whether a rule of the form "Nobody may VERB THINGS TIMES." holds for a deed."""
    said = rule.lower().rstrip(".")
    what = (f"the {thing}", f"anything of the {_THINGS[thing]}", "anything in town")
    when = ("at any time", time or "at any time")
    return said.startswith(f"nobody may {verb} ") and any(w in said for w in what) and any(w in said for w in when)
