from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from demur.attacks.federated import FederatedSimulator
from demur.errors import UsageError
from demur.training.aggregators import FedAvg, MultiKrum


def pull(toward: float) -> Callable[[nn.Module, int], None]:
    """A client that goes half of the way to a weight of its own."""

    def train(model: nn.Module, turn: int) -> None:
        with torch.no_grad():
            model.weight.add_((toward - model.weight) / 2)

    return train


def line() -> nn.Linear:
    model = nn.Linear(1, 1)
    with torch.no_grad():
        model.weight.fill_(0.0)
        model.bias.fill_(7.0)
    model.bias.requires_grad = False
    return model


def test_rounds_of_plain_averaging_have_a_closed_form() -> None:
    model = line()
    history = FederatedSimulator(model, [pull(1.0), pull(3.0)], FedAvg(), rounds=3).run()
    assert model.weight.item() == pytest.approx(2 * (1 - 0.5**3))  # half of the way to the mean each time
    assert [turn.change for turn in history] == pytest.approx([1.0, 0.5, 0.25])
    assert all(turn.kept == [0, 1] for turn in history)
    assert model.bias.item() == 7.0  # what is frozen does not travel


def test_each_client_starts_from_the_global_weights_whatever_the_order() -> None:
    forward, backward = line(), line()
    clients = [pull(1.0), pull(3.0), pull(8.0)]
    FederatedSimulator(forward, clients, rounds=2).run()
    FederatedSimulator(backward, clients[::-1], rounds=2).run()
    assert forward.weight.item() == pytest.approx(backward.weight.item())


def test_the_aggregator_says_whom_it_kept() -> None:
    model = line()
    clients = [pull(1.0), pull(1.1), pull(0.9), pull(1.05), pull(50.0)]
    history = FederatedSimulator(model, clients, MultiKrum(f=1, m=3), rounds=2).run()
    assert all(4 not in turn.kept and len(turn.kept) == 3 for turn in history)
    assert model.weight.item() < 1


def test_what_cannot_run_is_refused() -> None:
    with pytest.raises(UsageError, match="at least one client"):
        FederatedSimulator(line(), [])
    frozen = line().requires_grad_(False)
    with pytest.raises(UsageError, match="nothing that clients could train"):
        FederatedSimulator(frozen, [pull(1.0)])
    with pytest.raises(UsageError, match="needs at least 7 clients"):
        FederatedSimulator(line(), [pull(1.0)] * 3, MultiKrum()).run()
