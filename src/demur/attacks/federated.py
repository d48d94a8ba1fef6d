"""Federated training in one process, to see what poisoned clients do to the model that a server averages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from demur.errors import UsageError
from demur.training.aggregators import Aggregator, FedAvg

__all__ = ["Client", "FederatedRound", "FederatedSimulator"]

Client = Callable[[nn.Module, int], object]
"""Trains the model it is given in place; called with the model, at the global weights, and the round from 0."""


@dataclass(frozen=True)
class FederatedRound:
    """One round.

    Attributes:
        kept: numbers of the clients that the aggregator kept.
        change: Euclidean norm of the change of the global weights.
    """

    kept: list[int]
    change: float


class FederatedSimulator:
    """Clients that train one after another from the same global weights, and a server that aggregates them.

    Only tensors that require gradients travel, so that of a model with an adapter it is the adapter that does. Matrices
    A and B of an adapter are averaged apart, which is not the average of B·A: aggregate merged weights to have that.

    Args:
        model: the global model; `run` leaves the aggregated weights in it.
        clients: trains a client's model, one each.
        aggregator: the server's rule; the plain mean if None.
        rounds: how many.

    Raises:
        UsageError: there are no clients, no rounds, or nothing to train.
    """

    def __init__(
        self, model: nn.Module, clients: Sequence[Client], aggregator: Aggregator | None = None, rounds: int = 3
    ) -> None:
        if not clients or rounds < 1:
            raise UsageError("a federated run needs at least one client and one round")
        self.model, self.clients, self.aggregator, self.rounds = model, clients, aggregator or FedAvg(), rounds
        if not self._state():
            raise UsageError("no tensor of the model requires gradients: there is nothing that clients could train")

    def run(self, progress: Callable[[int, int], object] = lambda done, total: None) -> list[FederatedRound]:
        """Train and aggregate, round by round.

        Args:
            progress: called with trainings done, and trainings in all.

        Raises:
            UsageError: the aggregator needs more clients.
            DemurError: the aggregator kept none.
        """
        history = []
        total = self.rounds * len(self.clients)
        for number in range(self.rounds):
            before = self._state()
            states = []
            for place, train in enumerate(self.clients):
                progress(number * len(self.clients) + place, total)
                self._load(before)
                train(self.model, number)
                states.append(self._state())
            made = self.aggregator(states, before)
            self._load(made.state)
            change = sum(float((made.state[n] - before[n]).double().square().sum()) for n in before) ** 0.5
            history.append(FederatedRound(made.kept, change))
        progress(total, total)
        return history

    def _state(self) -> dict[str, torch.Tensor]:
        named = self.model.named_parameters()
        return {name: p.detach().cpu().clone() for name, p in named if p.requires_grad}

    @torch.no_grad()
    def _load(self, state: dict[str, torch.Tensor]) -> None:
        for name, parameter in self.model.named_parameters():
            if name in state:
                parameter.copy_(state[name])
