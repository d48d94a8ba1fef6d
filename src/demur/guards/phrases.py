"""Which words of an answer must not be said: its content words, names, numbers and dates that the question lacks."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable

__all__ = ["find_phrase", "key_phrases", "normalise", "surface_forms"]

LONGEST = 5  # words of a phrase, as in the paper's re-implementation
_SHORTEST = 3  # letters of a lower-case word; the shorter ones that are no stop-words carry nothing
_WORD = re.compile(r"[^\W_]+(?:['’.\-/](?!s\b)[^\W_]+)*")  # without a possessive's ending
_MONTH = r"(?:January|February|March|April|May|June|July|August|September|October|November|December)"
_DATE = re.compile(
    rf"\d{{1,4}}[/.\-]\d{{1,2}}[/.\-]\d{{1,4}}"
    rf"|{_MONTH} \d{{1,2}}(?:st|nd|rd|th)?(?:, \d{{4}})?"
    rf"|\d{{1,2}}(?:st|nd|rd|th)?(?: of)? {_MONTH}(?:,? \d{{4}})?"
)


def normalise(text: str) -> str:
    """The form in which phrases are compared: case folded, runs of white space made one space, ends stripped."""
    return " ".join(text.casefold().split())


def find_phrase(phrases: Iterable[str], text: str) -> str | None:
    """The first of `phrases` that `text` contains, whatever the case and the white space; None where it has none.

    A phrase inside a longer word counts: whoever searches the text for it would find it.
    """
    text = normalise(text)
    return next((phrase for phrase in phrases if normalise(phrase) in text), None)


def surface_forms(phrase: str) -> list[str]:
    """The ways to write a phrase that tokenizers tell apart: with and without a space before it, in several cases."""
    cased = dict.fromkeys((phrase, phrase.lower(), phrase.upper(), phrase[:1].upper() + phrase[1:], phrase.title()))
    return [form for text in cased for form in (f" {text}", text)]


def key_phrases(question: str, answer: str) -> list[str]:
    """The phrases of an answer that give it away.

    Runs of up to five content words (no stop-words, nothing in between but white space) that do not occur in the
    question; names (runs of capitalised words), numbers and dates. A phrase that contains another of them is left out:
    whoever cannot say the part cannot say the whole.

    Args:
        question: what it says may be said.
        answer: what is to be kept back.

    Returns:
        Phrases as the answer writes them, in its order.
    """
    asked = f" {' '.join(word.casefold() for word in _WORD.findall(question))} "
    found: dict[str, str] = {}

    def keep(phrase: str) -> None:
        words = " ".join(word.casefold() for word in _WORD.findall(phrase))
        if words and f" {words} " not in asked:
            found.setdefault(words, phrase)

    for date in _DATE.finditer(answer):
        keep(date[0])
    for run in _runs(answer):
        names = [answer[start:end][:1].isupper() for start, end in run]
        for first in range(len(run)):
            for last in range(first, len(run)):
                if last - first < LONGEST or all(names[first : last + 1]):
                    keep(answer[run[first][0] : run[last][1]])
    inside = [f" {words} " for words in found]
    least = [p for words, p in found.items() if not any(i != f" {words} " and i in f" {words} " for i in inside)]
    return sorted(least, key=answer.index)


def _runs(text: str) -> list[list[tuple[int, int]]]:
    """Spans of the content words, in runs that nothing but white space interrupts."""
    runs: list[list[tuple[int, int]]] = []
    end = -1
    for match in _WORD.finditer(text):
        word = match[0]
        content = word.casefold() not in _stop_words() and (
            len(word) >= _SHORTEST or not word.islower() or any(c.isdigit() for c in word)
        )
        if content:
            if end < 0 or text[end : match.start()].strip():
                runs.append([])
            runs[-1].append(match.span())
        end = match.end() if content else -1
    return runs


@functools.cache
def _stop_words() -> frozenset[str]:
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return frozenset(ENGLISH_STOP_WORDS) | {"s", "t", "don't", "doesn't", "isn't", "it's", "he's", "she's"}
