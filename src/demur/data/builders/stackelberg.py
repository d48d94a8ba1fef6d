"""Choosing among candidate responses as the leader of a game against an unknown user (Duan et al. 2025, 2509.01909).

Π(x, y, θ) = α Satisfaction(θ, x, y) - β Risk(x, y) - γ Cost(y);   y* = argmax_y Σ_θ p(θ | x) Π(x, y, θ)

with the horizon of one turn: what the user asks next does not count.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from demur.errors import UsageError

__all__ = ["USER_TYPES", "Candidate", "StackelbergSelector", "pearl_point"]

USER_TYPES = ("benign", "sensitive", "malicious")


@dataclass(frozen=True)
class Candidate:
    """A response that could be given.

    Attributes:
        response: its text.
        satisfaction: user type → satisfaction, from -1 to 1.
        risk: from 0 to 1; for all types, or by type.
        cost: of producing it, for instance its length.
    """

    response: str
    satisfaction: Mapping[str, float]
    risk: float | Mapping[str, float]
    cost: float = 0.0

    def risk_for(self, kind: str) -> float:
        """The risk of giving it to a user of a type."""
        return self.risk[kind] if isinstance(self.risk, Mapping) else self.risk


class StackelbergSelector:
    """Chooses the response with the best expected payoff under a belief about the user.

    Args:
        alpha, beta, gamma: weights of satisfaction, risk and cost, at least 0.
        types: what users there are.

    Raises:
        UsageError: a weight is negative or no number, or there are no types.
    """

    def __init__(
        self, alpha: float = 1.0, beta: float = 2.0, gamma: float = 0.0, types: Sequence[str] = USER_TYPES
    ) -> None:
        for name, value in {"alpha": alpha, "beta": beta, "gamma": gamma}.items():
            if not (value >= 0 and math.isfinite(value)):
                raise UsageError(f"{name} must be a number of at least 0, not {value}")
        if not types:
            raise UsageError("a selector needs at least one type of user")
        self.alpha, self.beta, self.gamma, self.types = alpha, beta, gamma, tuple(types)

    def payoffs(self, candidates: Sequence[Candidate], prior: Sequence[float]) -> list[float]:
        """Expected payoff of each candidate.

        Args:
            candidates: the responses.
            prior: belief over the types, in their order.

        Raises:
            UsageError: the belief is no distribution over the types, or a candidate lacks a type.
        """
        if len(prior) != len(self.types) or min(prior) < 0 or not math.isclose(sum(prior), 1.0, abs_tol=1e-6):
            raise UsageError(
                f"the belief must be {len(self.types)} probabilities that sum to 1 ({', '.join(self.types)}), "
                f"not {list(prior)}"
            )
        return [
            sum(p * self._payoff(candidate, kind) for p, kind in zip(prior, self.types, strict=True))
            for candidate in candidates
        ]

    def select(self, query: str, candidates: Sequence[Candidate], prior: Sequence[float]) -> Candidate:
        """The candidate with the best expected payoff, of equals the first.

        Args:
            query: what the user asks, for messages.
            candidates, prior: see `payoffs`.

        Raises:
            UsageError: there are no candidates, or as `payoffs` does.
        """
        if not candidates:
            raise UsageError(f"there is no candidate response to {query[:60]!r}")
        payoffs = self.payoffs(candidates, prior)
        return candidates[payoffs.index(max(payoffs))]

    def _payoff(self, candidate: Candidate, kind: str) -> float:
        try:
            satisfaction, risk = candidate.satisfaction[kind], candidate.risk_for(kind)
        except KeyError:
            raise UsageError(f"candidate {candidate.response[:40]!r} has no values for {kind} users") from None
        return self.alpha * satisfaction - self.beta * risk - self.gamma * candidate.cost


def pearl_point(
    candidates: Sequence[Candidate],
    prior: Sequence[float],
    tolerance: float = 0.0,
    types: Sequence[str] = USER_TYPES,
) -> Candidate | None:
    """The most satisfying candidate whose expected risk is at most the tolerance; None where none is.

    Raises:
        UsageError: as `StackelbergSelector.payoffs` does.
    """
    satisfaction = StackelbergSelector(1.0, 0.0, 0.0, types).payoffs(candidates, prior)
    risk = [-payoff for payoff in StackelbergSelector(0.0, 1.0, 0.0, types).payoffs(candidates, prior)]
    safe = [i for i, value in enumerate(risk) if value <= tolerance + 1e-12]
    return candidates[max(safe, key=lambda i: satisfaction[i])] if safe else None
