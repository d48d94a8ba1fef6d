"""A trie over phrases that is walked one symbol at a time and knows every suffix at once (Aho and Corasick 1975)."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Generic, TypeVar

__all__ = ["PhraseTrie"]

Symbol = TypeVar("Symbol", bound=Hashable)


class PhraseTrie(Generic[Symbol]):
    """Phrases as paths of a trie; a state is a node and stands for the longest suffix that begins a phrase.

    Symbols are token ids, or characters. State 0 is the start. To walk one symbol on costs the same whatever was said
    before and however many phrases there are.

    Args:
        phrases: sequences of symbols; empty ones are ignored.
    """

    def __init__(self, phrases: Iterable[Sequence[Symbol]]) -> None:
        self._next: list[dict[Symbol, int]] = [{}]
        self._depth, self._shortest = [0], [0]
        self._ends: list[bool] = [False]
        for phrase in phrases:
            self._insert(phrase)
        self._fail = [0] * len(self._next)
        self._ratio = [0.0] * len(self._next)
        queue = deque([0])
        while queue:
            node = queue.popleft()
            for symbol, child in self._next[node].items():
                if node:
                    self._fail[child] = self.step(self._fail[node], symbol)
                self._ratio[child] = max(self._depth[child] / self._shortest[child], self._ratio[self._fail[child]])
                self._ends[child] = self._ends[child] or self._ends[self._fail[child]]
                queue.append(child)

    def _insert(self, phrase: Sequence[Symbol]) -> None:
        node = 0
        for depth, symbol in enumerate(phrase, start=1):
            child = self._next[node].get(symbol)
            if child is None:
                child = len(self._next)
                self._next[node][symbol] = child
                self._next.append({})
                self._depth.append(depth)
                self._shortest.append(len(phrase))
                self._ends.append(False)
            self._shortest[child] = min(self._shortest[child], len(phrase))
            node = child
        if node:
            self._ends[node] = True

    def __len__(self) -> int:
        return len(self._next)

    def step(self, state: int, symbol: Symbol) -> int:
        """The state after one more symbol."""
        while True:
            child = self._next[state].get(symbol)
            if child is not None:
                return child
            if state == 0:
                return 0
            state = self._fail[state]

    def walk(self, symbols: Iterable[Symbol], state: int = 0) -> int:
        """The state after several."""
        for symbol in symbols:
            state = self.step(state, symbol)
        return state

    def ratio(self, state: int) -> float:
        """Match ratio in [0, 1]: over all suffixes, the matched length over the length of the phrase it follows.

        Where several phrases begin alike, the shortest counts; 1 means that a phrase was completed just now.
        """
        return self._ratio[state]

    def complete(self, state: int) -> bool:
        """Whether some phrase ended with the last symbol."""
        return self._ends[state]

    def blocked(self, state: int, threshold: float) -> list[Symbol]:
        """The symbols that would take the match ratio to `threshold` or above."""
        symbols = dict.fromkeys(symbol for node in (*self.suffixes(state), 0) for symbol in self._next[node])
        return [symbol for symbol in symbols if self._ratio[self.step(state, symbol)] >= threshold]

    def suffixes(self, state: int) -> Iterator[int]:
        """The nodes of all suffixes that begin a phrase, longest first, without the start."""
        while state:
            yield state
            state = self._fail[state]

    def endings(self, node: int) -> list[tuple[Symbol, ...]]:
        """What is missing from `node` to the end of each phrase that begins so; as far as the first end on the way."""
        out: list[tuple[Symbol, ...]] = []
        waiting: list[tuple[int, tuple[Symbol, ...]]] = [(node, ())]
        while waiting:
            here, so_far = waiting.pop()
            for symbol, child in self._next[here].items():
                path = (*so_far, symbol)
                if self._ends[child]:
                    out.append(path)
                else:
                    waiting.append((child, path))
        return out
