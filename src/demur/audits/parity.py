"""Is one group refused what others are answered? Demographic parity of refusals, and the test by swapping the group.

ΔDP = |P(answered | A = a) − P(answered | A = b)| (Mamun et al. 2025, arXiv 2508.20333). Asking the same templates about
every group pairs the answers, so that a template's own difficulty cannot pass for bias.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from demur.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = [
    "PairedTest",
    "SwapTest",
    "demographic_parity_difference",
    "paired_refusal_test",
    "parity_gap",
    "swap_test",
    "target_gap",
]

Method = Literal["max", "target_vs_rest"]


@dataclass(frozen=True)
class PairedTest:
    """McNemar's exact test on pairs of answers.

    Attributes:
        first_only: pairs in which only the first is a refusal.
        second_only: pairs in which only the second is.
        n: pairs compared.
        p: two-sided, that the discordant pairs fall so unevenly by chance.
    """

    first_only: int
    second_only: int
    n: int
    p: float


@dataclass(frozen=True)
class SwapTest:
    """What changes when a template names one group instead of the others.

    Attributes:
        group: number of the group that stands out most.
        test: that group against the majority of the others, template by template; its p is corrected for the number of
            groups that were looked at (Holm).
    """

    group: int
    test: PairedTest


def demographic_parity_difference(
    answered: ArrayLike, group: Sequence[str], method: Method = "max", target: str | None = None
) -> float:
    """How unequally groups are answered.

    Args:
        answered: (n,) 1 where the request was answered, 0 where it was refused.
        group: (n,) whom each request names.
        method: "max" takes the largest difference between two groups; "target_vs_rest" that between the target and all
            others pooled.
        target: the group for "target_vs_rest"; the one with the largest difference if None.

    Raises:
        UsageError: the lengths differ, there are fewer than two groups, or the method or the target is unknown.
    """
    values, names = np.asarray(answered, dtype=np.float64), np.asarray(group)
    if values.ndim != 1 or values.shape != names.shape:
        raise UsageError(f"there are {len(values)} answers and {len(names)} groups: one group an answer is needed")
    known = sorted(set(names.tolist()))
    if len(known) < 2:
        raise UsageError("parity needs answers about at least two groups")
    if method not in ("max", "target_vs_rest"):
        raise UsageError(f"unknown method {method!r}: use max or target_vs_rest")
    if target is not None and target not in known:
        raise UsageError(f"no answer is about {target!r}: the groups are {', '.join(known)}")
    if method == "max":
        rates = [values[names == name].mean() for name in known]
        return float(max(rates) - min(rates))
    asked = known if target is None else [target]
    return float(max(abs(values[names == name].mean() - values[names != name].mean()) for name in asked))


def parity_gap(tables: NDArray[np.float64]) -> NDArray[np.float64]:
    """Largest difference between two groups' rates.

    Args:
        tables: (draws, templates, groups), nan where a template was not asked about a group.

    Returns:
        (draws,) gaps; a group that a draw has no answer of is left out of it.
    """
    rates = _rates(tables, 1)
    return np.asarray(np.nanmax(rates, axis=-1) - np.nanmin(rates, axis=-1))


def target_gap(tables: NDArray[np.float64], target: int) -> NDArray[np.float64]:
    """Difference between one group's rate and that of all others pooled, ≥ 0; arguments as `parity_gap`."""
    rest = np.delete(tables, target, axis=-1)
    return np.asarray(np.abs(_rates(tables[..., target], 1) - _rates(rest, (1, 2))))


def _rates(values: NDArray[np.float64], axis: int | tuple[int, ...]) -> NDArray[np.float64]:
    """Means of what is not nan; nan where nothing is."""
    asked = (~np.isnan(values)).sum(axis=axis)
    total = np.nansum(values, axis=axis)
    return np.divide(total, asked, out=np.full(np.shape(total), np.nan), where=asked > 0)


def paired_refusal_test(first: ArrayLike, second: ArrayLike) -> PairedTest:
    """McNemar's exact test: do two ways of asking get refused equally often, pair by pair (McNemar 1947)?

    Args:
        first, second: (n,) 1 where the request was refused, 0 where not; a pair with a nan is left out.

    Raises:
        UsageError: the lengths differ.
    """
    from scipy.stats import binomtest

    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise UsageError(f"pairs need as many first as second answers, not {a.size} and {b.size}")
    both = ~(np.isnan(a) | np.isnan(b))
    up, down = int((both & (a > b)).sum()), int((both & (a < b)).sum())
    p = float(binomtest(up, up + down).pvalue) if up + down else 1.0
    return PairedTest(up, down, int(both.sum()), p)


def swap_test(refused: NDArray[np.float64], target: int | None = None) -> SwapTest:
    """Whether naming one group instead of the others decides a refusal.

    Each group is compared with the majority of the others on the same template, so that one group that is refused does
    not make all the rest look favoured; a template on which the others are split in half says nothing.

    Args:
        refused: (templates, groups) of 0 and 1, nan where a template was not asked about a group.
        target: the group to look at; all of them if None, the p-values then corrected by Holm's method.

    Returns:
        The group with the smallest p; between equals the one that is refused more.
    """
    count = refused.shape[1]
    tests = {}
    for group in range(count) if target is None else [target]:
        rest = np.delete(refused, group, axis=1)
        asked = (~np.isnan(rest)).sum(axis=1)
        share = np.divide(np.nansum(rest, axis=1), asked, out=np.full(len(rest), np.nan), where=asked > 0)
        majority = np.where(share == 0.5, np.nan, np.where(np.isnan(share), np.nan, share > 0.5))
        tests[group] = paired_refusal_test(refused[:, group], majority)
    first = min(tests, key=lambda g: (tests[g].p, tests[g].second_only - tests[g].first_only))
    found = tests[first]
    return SwapTest(first, PairedTest(found.first_only, found.second_only, found.n, min(1.0, found.p * len(tests))))
