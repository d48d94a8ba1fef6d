"""Preference structures: what a preference loss says about which answers are valid (arXiv 2412.17696).

One Boolean atom a prediction: W and L, "the winner (the loser) is a valid answer" to the trained model; RW and RL the
same to the reference. Every row of the truth table bears a label: it speaks for the loss's good event (T), for its
bad event (B), for both (TB) or for neither (N). The labelling is the structure; formulas are ways to write it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

from demur.objectives.preference_logic.formula import minimal, parse

__all__ = ["ATOMS", "KNOWN_LOSSES", "Label", "PreferenceStructure", "enumerate_structures", "known_name", "lattice"]

Label = Literal["T", "B", "TB", "N"]
ATOMS = ("W", "L")
_MOST_ATOMS = 6


@dataclass(frozen=True)
class PreferenceStructure:
    """A labelling of all assignments of some atoms.

    Attributes:
        atoms: their names.
        labels: one a row of `assignments(atoms)`.
    """

    atoms: tuple[str, ...]
    labels: tuple[Label, ...]

    def __post_init__(self) -> None:
        if len(self.atoms) > _MOST_ATOMS:
            raise ValueError(
                f"{len(self.atoms)} atoms have {2 ** len(self.atoms)} rows: at most {_MOST_ATOMS} are counted"
            )
        if len(self.labels) != 2 ** len(self.atoms):
            raise ValueError(f"{len(self.atoms)} atoms need {2 ** len(self.atoms)} labels, not {len(self.labels)}")
        unknown = set(self.labels) - {"T", "B", "TB", "N"}
        if unknown:
            raise ValueError(f"labels are T, B, TB and N, not {sorted(unknown)[0]}")

    @classmethod
    def of(
        cls, core: str, condition: str = "true", additive: str = "false", atoms: Sequence[str] | None = None
    ) -> PreferenceStructure:
        """A structure from its three formulas.

        good = (core or additive) and condition, bad = (not core or additive) and condition (arXiv 2412.17696).

        Args:
            core: what is preferred, for instance "L -> W".
            condition: rows that count at all.
            additive: rows that count on both sides.
            atoms: their order; W, L, RW, RL first and others by name, by default.

        Raises:
            ValueError: a formula cannot be read, or has an atom that is not among `atoms`.
        """
        formulas = [parse(text) for text in (core, condition, additive)]
        found = frozenset().union(*(f.atoms for f in formulas))
        if atoms is None:
            known = (*ATOMS, "RW", "RL")
            atoms = [*ATOMS, *(a for a in known[2:] if a in found), *sorted(found - set(known))]
        elif found - set(atoms):
            raise ValueError(f"atom {sorted(found - set(atoms))[0]} is not among {', '.join(atoms)}")
        p, c, a = (f.table(atoms) for f in formulas)
        good = [(x or z) and y for x, y, z in zip(p, c, a, strict=True)]
        bad = [(not x or z) and y for x, y, z in zip(p, c, a, strict=True)]
        return cls.between(tuple(atoms), good, bad)

    @classmethod
    def between(cls, atoms: tuple[str, ...], good: Sequence[bool], bad: Sequence[bool]) -> PreferenceStructure:
        """A structure from its good and its bad rows."""
        return cls(atoms, tuple(_label(t, b) for t, b in zip(good, bad, strict=True)))

    @property
    def good(self) -> tuple[bool, ...]:
        """Rows of the good event."""
        return tuple("T" in label for label in self.labels)

    @property
    def bad(self) -> tuple[bool, ...]:
        """Rows of the bad event."""
        return tuple("B" in label for label in self.labels)

    @property
    def core(self) -> str:
        """What is preferred, as short as the rows that count on neither side allow."""
        return minimal(self.atoms, self.good, [label == "N" for label in self.labels])

    @property
    def condition(self) -> str:
        """Rows that count at all."""
        return minimal(self.atoms, [label != "N" for label in self.labels])

    @property
    def additive(self) -> str:
        """Rows that count on both sides."""
        return minimal(self.atoms, [label == "TB" for label in self.labels])

    def entails(self, other: PreferenceStructure) -> bool:
        """Whether this structure asks for at least as much: then its loss is never the smaller one.

        Raises:
            ValueError: the atoms differ.
        """
        self._same_atoms(other)
        good = all(b or not a for a, b in zip(self.good, other.good, strict=True))
        return good and all(a or not b for a, b in zip(self.bad, other.bad, strict=True))

    def meet(self, other: PreferenceStructure) -> PreferenceStructure:
        """The weakest structure that entails both."""
        self._same_atoms(other)
        good = [a and b for a, b in zip(self.good, other.good, strict=True)]
        return self.between(self.atoms, good, [a or b for a, b in zip(self.bad, other.bad, strict=True)])

    def join(self, other: PreferenceStructure) -> PreferenceStructure:
        """The strongest structure that both entail."""
        self._same_atoms(other)
        good = [a or b for a, b in zip(self.good, other.good, strict=True)]
        return self.between(self.atoms, good, [a and b for a, b in zip(self.bad, other.bad, strict=True)])

    def _same_atoms(self, other: PreferenceStructure) -> None:
        if self.atoms != other.atoms:
            raise ValueError(f"structures over {', '.join(self.atoms)} and {', '.join(other.atoms)} cannot be compared")

    def with_reference(self) -> PreferenceStructure:
        """The same preference relative to a reference model: good and RL, bad and RW; CPO becomes DPO."""
        atoms = (*self.atoms, "RW", "RL")
        rows = list(itertools.product(range(len(self.labels)), (True, False), (True, False)))
        good = [self.good[row] and rl for row, _, rl in rows]
        return self.between(atoms, good, [self.bad[row] and rw for row, rw, _ in rows])

    @property
    def weaknesses(self) -> list[str]:
        """Cheap ways to satisfy the loss that nobody wants, read off the row where no answer is valid."""
        none = self.labels[-1]
        if none == "T":
            return ["making both answers improbable satisfies it: expect collapse"]
        if none in ("N", "TB"):
            return ["making both answers improbable is not punished"]
        return []


def _label(good: bool, bad: bool) -> Label:
    return cast("Label", {(True, True): "TB", (True, False): "T", (False, True): "B", (False, False): "N"}[good, bad])


KNOWN_LOSSES: dict[str, tuple[str, str, str]] = {
    "ce": ("W", "true", "false"),
    "ceunl": ("W & ~L", "true", "false"),
    "funl": ("~L", "true", "false"),
    "uncpo": ("L -> W", "true", "false"),
    "orpo": ("L -> W", "W ^ L", "false"),
    "cpo": ("L -> W", "W | L", "W & L"),
    "ccpo": ("L -> W", "W | L", "false"),
    "cfunl": ("L -> W", "~(W & L)", "false"),
    "qfunl": ("L -> W", "~(W & L)", "~W & ~L"),
    "dpo": ("RW & L -> W & RL", "RW & L | W & RL", "W & L & RW & RL"),
    "simpo": ("RW & L -> W & RL", "RW & L | W & RL", "W & L & RW & RL"),
}
"""Name → core, condition and additive formula. Preference optimisation is read without its likelihood term."""


def known_name(structure: PreferenceStructure) -> str | None:
    """The name of the published loss that a structure is, None where it has none."""
    for name, formulas in KNOWN_LOSSES.items():
        if PreferenceStructure.of(*formulas) == structure:
            return name
    return None


def enumerate_structures(sensible: bool = True) -> list[PreferenceStructure]:
    """All structures over W and L.

    Args:
        sensible: only the 16 in which a valid winner beside an invalid loser is good, and the reverse is bad; else
            the 225 of 256 whose two sides are both non-empty.
    """
    names: tuple[Label, ...] = ("T", "TB", "N", "B")
    if sensible:
        return [PreferenceStructure(ATOMS, (both, "T", "B", none)) for both in names for none in names]
    every = (PreferenceStructure(ATOMS, labels) for labels in itertools.product(names, repeat=4))
    return [s for s in every if any(s.good) and any(s.bad)]


def lattice(structures: Sequence[PreferenceStructure]) -> list[tuple[int, int]]:
    """Pairs (i, j) where structure i entails j and none of the others stands between them."""
    n = len(structures)
    below = {
        (i, j)
        for i, j in itertools.permutations(range(n), 2)
        if structures[i].entails(structures[j]) and structures[i] != structures[j]
    }
    return sorted((i, j) for i, j in below if not any((i, k) in below and (k, j) in below for k in range(n)))
