"""Choosing among candidate responses as the leader of a game against an unknown user (Duan et al. 2025, 2509.01909).

Π(x, y, θ) = α Satisfaction(θ, x, y) - β Risk(x, y) - γ Cost(y);   y* = argmax_y Σ_θ p(θ | x) Π(x, y, θ)

with the horizon of one turn. Where a simulated user says what may be asked next, a second turn counts too,

    y* = argmax_y Σ_θ p(θ | x) Π(x, y, θ) + δ Σ_x' P(x' | x, y) max_y' Σ_θ p(θ | x, y, x') Π(x', y', θ)

with P(x' | x, y) = Σ_θ p(θ | x) q(x' | x, y, θ), and the belief after x' by Bayes' rule. Who leaves pays nothing more.
The paper says that the follower's next query counts and gives no formula; this is the game's own backward induction.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from demur.errors import UsageError

__all__ = ["USER_TYPES", "Candidate", "NextTurn", "StackelbergSelector", "pearl_point"]

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


@dataclass(frozen=True)
class NextTurn:
    """What a user may say after a response.

    Attributes:
        query: what is asked.
        chances: user type → probability that a user of the type asks it; what is left of 1 leaves.
        candidates: the responses that could be given.
    """

    query: str
    chances: Mapping[str, float]
    candidates: Sequence[Candidate]


class StackelbergSelector:
    """Chooses the response with the best expected payoff under a belief about the user.

    Args:
        alpha, beta, gamma: weights of satisfaction, risk and cost, at least 0.
        types: what users there are.
        simulate: query, response → what may be asked next; None for a horizon of one turn.
        discount: weight of the second turn, from 0 to 1.

    Raises:
        UsageError: a weight is negative or no number, the discount is out of range, or there are no types.
    """

    def __init__(
        self,
        alpha: float = 1.0,
        beta: float = 2.0,
        gamma: float = 0.0,
        types: Sequence[str] = USER_TYPES,
        simulate: Callable[[str, Candidate], Sequence[NextTurn]] | None = None,
        discount: float = 1.0,
    ) -> None:
        for name, value in {"alpha": alpha, "beta": beta, "gamma": gamma}.items():
            if not (value >= 0 and math.isfinite(value)):
                raise UsageError(f"{name} must be a number of at least 0, not {value}")
        if not types:
            raise UsageError("a selector needs at least one type of user")
        if not 0 <= discount <= 1:
            raise UsageError(f"discount must be from 0 to 1, not {discount}")
        self.alpha, self.beta, self.gamma, self.types = alpha, beta, gamma, tuple(types)
        self.simulate, self.discount = simulate, discount

    def payoffs(self, candidates: Sequence[Candidate], prior: Sequence[float], query: str = "") -> list[float]:
        """Expected payoff of each candidate, that of the second turn included where a user is simulated.

        Args:
            candidates: the responses.
            prior: belief over the types, in their order.
            query: what the user asks, for the simulated user.

        Raises:
            UsageError: the belief is no distribution over the types, a candidate or a turn lacks a type, or a type's
                chances sum to more than 1.
        """
        if len(prior) != len(self.types) or min(prior) < 0 or not math.isclose(sum(prior), 1.0, abs_tol=1e-6):
            raise UsageError(
                f"the belief must be {len(self.types)} probabilities that sum to 1 ({', '.join(self.types)}), "
                f"not {list(prior)}"
            )
        now = [self._expected(candidate, prior) for candidate in candidates]
        if self.simulate is None:
            return now
        return [
            payoff + self.discount * self._second(self.simulate(query, candidate), prior)
            for payoff, candidate in zip(now, candidates, strict=True)
        ]

    def select(self, query: str, candidates: Sequence[Candidate], prior: Sequence[float]) -> Candidate:
        """The candidate with the best expected payoff, of equals the first.

        Args:
            query: what the user asks.
            candidates, prior: see `payoffs`.

        Raises:
            UsageError: there are no candidates, or as `payoffs` does.
        """
        if not candidates:
            raise UsageError(f"there is no candidate response to {query[:60]!r}")
        payoffs = self.payoffs(candidates, prior, query)
        return candidates[payoffs.index(max(payoffs))]

    def _expected(self, candidate: Candidate, weights: Sequence[float]) -> float:
        return sum(p * self._payoff(candidate, kind) for p, kind in zip(weights, self.types, strict=True))

    def _second(self, turns: Sequence[NextTurn], prior: Sequence[float]) -> float:
        """Expected payoff of the best responses to what may be asked next; the joint weights need no normalising."""
        for kind in self.types:
            chances = [_chance(turn, kind) for turn in turns]
            if min(chances, default=0.0) < 0 or sum(chances) > 1 + 1e-6:
                raise UsageError(f"the chances of what {kind} users ask next must be at least 0 and sum to at most 1")
        total = 0.0
        for turn in turns:
            if not turn.candidates:
                raise UsageError(f"there is no candidate response to {turn.query[:60]!r}")
            joint = [p * _chance(turn, kind) for p, kind in zip(prior, self.types, strict=True)]
            total += max(self._expected(candidate, joint) for candidate in turn.candidates)
        return total

    def _payoff(self, candidate: Candidate, kind: str) -> float:
        try:
            satisfaction, risk = candidate.satisfaction[kind], candidate.risk_for(kind)
        except KeyError:
            raise UsageError(f"candidate {candidate.response[:40]!r} has no values for {kind} users") from None
        return self.alpha * satisfaction - self.beta * risk - self.gamma * candidate.cost


def _chance(turn: NextTurn, kind: str) -> float:
    if kind not in turn.chances:
        raise UsageError(f"the turn {turn.query[:40]!r} has no chance for {kind} users")
    return turn.chances[kind]


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
