"""The reasoning chain of constructive safety alignment and its trust region (Duan et al. 2025, arXiv 2509.01909).

Four nodes in order: what the user needs, what risk the request carries, what the safety guideline says to that, and the
strategies of the answer, those that make it useful and those that keep it safe. The released code is `lingo_bp.py`.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["SafetyChain", "simhash", "simhash_similarity", "split_strategies", "trust_region"]

_BITS = 64
_SHINGLE = 4
_SHORTEST = 3  # characters of an old set, below which there is nothing to stay near to


def split_strategies(text: str | Iterable[str]) -> tuple[str, ...]:
    """Strategies in a normal form: parted, stripped, without numbers or doubles, sorted.

    Args:
        text: strategies joined by semicolons, commas (full-width ones too) or line breaks, or one by one.
    """
    parts = [text] if isinstance(text, str) else list(text)
    found = (re.sub(r"^\s*(?:[-*•]|\d+[.)])\s*", "", piece) for p in parts for piece in re.split(r"[;,；，、\n]", p))
    return tuple(sorted({" ".join(piece.split()).rstrip(".。") for piece in found} - {""}))


@dataclass(frozen=True)
class SafetyChain:
    """What an answer is derived from.

    Attributes:
        needs: what the user needs.
        intent: what risk the request carries; empty, or saying "no risk", for none.
        guideline: what the safety guideline says to it.
        safety_strategies: what keeps the answer safe; in a conflict these win.
        usefulness_strategies: what makes it useful.
    """

    needs: str
    intent: str = ""
    guideline: str = ""
    safety_strategies: tuple[str, ...] = ()
    usefulness_strategies: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("safety_strategies", "usefulness_strategies"):
            object.__setattr__(self, name, split_strategies(getattr(self, name)))

    @property
    def strategies(self) -> tuple[str, ...]:
        """All strategies, sorted."""
        return split_strategies([*self.safety_strategies, *self.usefulness_strategies])

    @property
    def risky(self) -> bool:
        """Whether there is a risk, and a guideline that says something to it."""
        return bool(self.intent.strip() and self.guideline.strip()) and "no risk" not in self.intent.lower()

    def nodes(self) -> dict[str, Any]:
        """What an answer is written from: all nodes, or without a risk only the needs and all strategies."""
        if not self.risky:
            return {"needs": self.needs, "strategies": list(self.strategies)}
        return {
            "needs": self.needs,
            "intent": self.intent,
            "guideline": self.guideline,
            "safety_strategies": list(self.safety_strategies),
            "usefulness_strategies": list(self.usefulness_strategies),
        }

    @classmethod
    def read(cls, nodes: Mapping[str, Any]) -> SafetyChain:
        """A chain from plain data with the attributes' names; what is absent is empty."""
        return cls(
            needs=str(nodes.get("needs") or ""),
            intent=str(nodes.get("intent") or ""),
            guideline=str(nodes.get("guideline") or ""),
            safety_strategies=split_strategies(nodes.get("safety_strategies") or ()),
            usefulness_strategies=split_strategies(nodes.get("usefulness_strategies") or ()),
        )


@functools.lru_cache(maxsize=10_000)
def simhash(text: str) -> int:
    """64-bit SimHash of a text's overlapping pieces of four characters, letters and digits alone (Charikar 2002)."""
    letters = "".join(re.findall(r"\w+", text.lower()))
    pieces = [letters[i : i + _SHINGLE] for i in range(max(1, len(letters) - _SHINGLE + 1))]
    votes = [0] * _BITS
    for piece in pieces:
        value = int.from_bytes(hashlib.blake2b(piece.encode(), digest_size=_BITS // 8).digest(), "big")
        for bit in range(_BITS):
            votes[bit] += 1 if value >> bit & 1 else -1
    return sum(1 << bit for bit, vote in enumerate(votes) if vote > 0)


def simhash_similarity(first: str, second: str) -> float:
    """1 - Hamming distance / 64 of two texts' SimHashes: 1 for equal texts, about 0.5 for unrelated ones."""
    return 1.0 - (simhash(first) ^ simhash(second)).bit_count() / _BITS


def trust_region(old: Sequence[str] | str, new: Sequence[str] | str, max_change: int = 2) -> tuple[str, ...]:
    """The strategies to go on with, near to the old ones.

    New strategies are accepted where they differ from the old ones in at most `max_change`. Else what both share
    stays, and of the rest of the old ones the one least similar on average to the new ones joins it. Where they share
    nothing, the old strategy that is most similar to a new one counts as shared.

    In that last case the released code keeps all other new strategies besides, so that nearly everything may change at
    once.

    Args:
        old, new: strategies before and after an edit.
        max_change: largest size of the symmetric difference that is accepted.

    Returns:
        The strategies, sorted. Where the change was too large they are old ones alone: the shared ones and one more
        (no more where the new set holds all old ones).
    """
    before, after = split_strategies(old), split_strategies(new)
    if len(";".join(before)) < _SHORTEST or len(set(before) ^ set(after)) <= max_change:
        return after
    kept = set(before) & set(after)
    if not after:
        return before
    if not kept:
        kept = {max(before, key=lambda o: max(simhash_similarity(o, n) for n in after))}
    rest = [strategy for strategy in before if strategy not in kept]
    if rest:
        kept.add(min(rest, key=lambda o: sum(simhash_similarity(o, n) for n in after)))
    return tuple(sorted(kept))
