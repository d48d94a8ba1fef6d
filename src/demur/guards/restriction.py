"""What one forget item forbids while an answer is decoded: tokens, text and words.

A phrase is forbidden twice over. The trie over token ids is the paper's; it sees the tokenisations it was given. The
trie over characters follows the text that the tokens spell, so that no other tokenisation, case or spacing slips by.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from demur.guards.phrases import normalise, surface_forms
from demur.guards.trie import PhraseTrie

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["Pieces", "Restriction", "State", "is_word", "last_word", "token_trie", "words_of"]

_LAST = re.compile(r"[\w'’-]*\Z")
_UNKNOWN = "\ufffd"  # what a decoder writes for bytes that are no character yet


def is_word(character: str) -> bool:
    """Whether a character belongs to a word rather than standing between two."""
    return character.isalnum() or character in "'’-_"


class Pieces:
    """The text that each token adds to an answer, in the form in which phrases are compared.

    Args:
        tokenizer: decodes.
        size: length of the model's vocabulary, which may exceed the tokenizer's.

    Attributes:
        texts: (size,) case-folded text of each token, runs of white space made one space; "" for special tokens.
        breaks: (size,) bool: the token ends the word before it, as space, punctuation and the end token do.
        tails: (size,) the word that each token ends in.
        within: (size,) whether it is nothing else, so that it goes on with the word before it.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, size: int) -> None:
        # A token decoded alone may lose its leading space, hence the one before it.
        anchor = tokenizer("a", add_special_tokens=False).input_ids[-1]
        known = min(size, len(tokenizer))
        start = len(str(tokenizer.decode([anchor])))
        decoded = tokenizer.batch_decode([[anchor, token] for token in range(known)], skip_special_tokens=True)
        self.texts = [re.sub(r"\s+", " ", text[start:].casefold()) for text in decoded] + [""] * (size - known)
        self.breaks = torch.tensor([bool(text) and not is_word(text[0]) for text in self.texts])
        if tokenizer.eos_token_id is not None:
            self.breaks[tokenizer.eos_token_id] = True
        self.tails = [last_word(text) for text in self.texts]
        self.within = [tail == text for tail, text in zip(self.tails, self.texts, strict=True)]
        self._order = sorted(range(size), key=self.texts.__getitem__)
        self._sorted = [self.texts[token] for token in self._order]
        self._joined = "\0" + "\0".join(self.texts)
        self._starts = [0]
        for text in self.texts:
            self._starts.append(self._starts[-1] + len(text) + 1)

    def starting(self, prefix: str) -> list[int]:
        """The tokens whose text begins with `prefix`."""
        low = bisect.bisect_left(self._sorted, prefix)
        high = bisect.bisect_left(self._sorted, prefix + "\U0010ffff", low)
        return self._order[low:high]

    def containing(self, phrase: str) -> list[int]:
        """The tokens whose text holds the whole of `phrase`."""
        out = []
        place = self._joined.find(phrase)
        while place >= 0:
            token = bisect.bisect_right(self._starts, place) - 1
            out.append(token)
            place = self._joined.find(phrase, self._starts[token + 1])
        return out


class State(NamedTuple):
    """Where a beam stands: the token trie's node, the character trie's, whether it ends in a space, its last word."""

    tokens: int
    text: int
    spaced: bool
    word: str


def token_trie(
    tokenizer: PreTrainedTokenizerBase,
    phrases: Sequence[str],
    forms: Callable[[str], Sequence[str]] = surface_forms,
) -> PhraseTrie[int]:
    """The trie over the token ids of every form of every phrase."""
    texts = list(dict.fromkeys(form for phrase in phrases for form in forms(phrase)))
    ids = tokenizer(texts, add_special_tokens=False, return_attention_mask=False).input_ids if texts else []
    return PhraseTrie(ids)


class Restriction:
    """Phrases that an answer must not contain, followed token by token.

    Args:
        phrases: what must not be said.
        trie: the phrases over token ids.
        pieces: the tokenizer's tokens as text.
        tokenizer: decodes where pieces alone do not tell.
        hard_threshold: match ratio of the token trie at which a continuation is dropped; above 1 nothing ever is,
            and the text is not looked at either.
        check_text: also follow the text; without it the token trie alone decides.

    Attributes:
        penalties: word → its semantic penalty, inf where it is to be dropped; filled by whoever has the encoder.
        start: the state before the first token.
    """

    def __init__(
        self,
        phrases: Sequence[str],
        trie: PhraseTrie[int],
        pieces: Pieces,
        tokenizer: PreTrainedTokenizerBase,
        hard_threshold: float = 1.0,
        check_text: bool = True,
    ) -> None:
        self.phrases, self.trie, self.pieces, self._tokenizer = tuple(phrases), trie, pieces, tokenizer
        self._threshold, self._check_text = hard_threshold, check_text and hard_threshold <= 1
        written = self._written = [normalise(phrase) for phrase in phrases] if self._check_text else []
        self._text = PhraseTrie(written)
        # Tokens that spell a whole phrase are forbidden in every state.
        self._always = {token for phrase in written if phrase for token in pieces.containing(phrase)}
        self._known: dict[tuple[int, int, bool], Tensor] = {}
        self._steps: dict[tuple[int, int, bool, int], tuple[int, int, bool] | None] = {}
        self.penalties: dict[str, float] = {}
        self.start = State(0, 0, True, "")

    def forbidden(self, state: State) -> Tensor:
        """(n,) the tokens that must not come next; the same tensor for the same place in both tries."""
        key = state[:3]
        if key not in self._known:
            tokens = {*self._always, *self.trie.blocked(state.tokens, self._threshold)}
            for node in self._text.suffixes(state.text):
                for ending in map("".join, self._text.endings(node)):
                    tokens.update(self.pieces.starting(ending))
                    if state.spaced:  # a second space changes nothing
                        tokens.update(self.pieces.starting(" " + ending))
            self._known[key] = torch.tensor(sorted(tokens), dtype=torch.long)
        return self._known[key]

    def advance(self, state: State, tokens: Sequence[int]) -> State | None:
        """The state after `tokens[-1]`, or None where the text then holds a phrase.

        Args:
            state: before that token.
            tokens: the whole answer so far.
        """
        token = tokens[-1]
        piece = self.pieces.texts[token]
        if _UNKNOWN in piece:  # part of a character: only the whole answer can be read
            return self._read(self.trie.step(state.tokens, token), tokens)
        key = (*state[:3], token)
        if key not in self._steps:
            self._steps[key] = self._step(*key, piece)
        place = self._steps[key]
        word = self.pieces.tails[token]
        return None if place is None else State(*place, state.word + word if self.pieces.within[token] else word)

    def _step(self, node: int, text: int, spaced: bool, token: int, piece: str) -> tuple[int, int, bool] | None:
        for character in piece[1:] if spaced and piece.startswith(" ") else piece:
            text = self._text.step(text, character)
            if self._text.complete(text):
                return None
        return self.trie.step(node, token), text, piece[-1] == " " if piece else spaced

    def _read(self, node: int, tokens: Sequence[int]) -> State | None:
        written = str(self._tokenizer.decode(list(tokens), skip_special_tokens=True)).rstrip(_UNKNOWN)
        if self.leak(written) is not None:
            return None
        folded = normalise(written) + (" " if written[-1:].isspace() else "")
        return State(node, self._text.walk(folded), folded[-1:] in ("", " "), last_word(folded))

    def leak(self, text: str) -> str | None:
        """The first forbidden phrase in a text; None where there is none, or where text is not looked at."""
        if not self._check_text:
            return None
        text = normalise(text)
        return next((phrase for phrase, form in zip(self.phrases, self._written, strict=True) if form in text), None)


def last_word(text: str) -> str:
    """The word that a text ends in; "" where it ends in none."""
    found = _LAST.search(text)
    assert found is not None
    return found[0]


def words_of(text: str) -> list[str]:
    """The words of a text, case folded."""
    return "".join(c if is_word(c) else " " for c in text.casefold()).split()
