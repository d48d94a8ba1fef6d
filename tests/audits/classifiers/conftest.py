from __future__ import annotations

import pytest
import torch
from torch import nn

from demur.audits.classifiers import UnlearnSplits
from demur.data.labelled import split_off
from demur.data.labelled_sources import read_labelled
from demur.models import train_classifier
from demur.models.classifier import Classifier


def small_net(seed: int = 0) -> Classifier:
    """A network of two layers for 8 × 8 digits."""
    torch.manual_seed(seed)
    return Classifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10)), head="3")


@pytest.fixture(scope="session")
def threes() -> UnlearnSplits:
    """All threes of 400 digits are to be forgotten."""
    split = split_off(read_labelled("digits:train[0:400]"), "class:3")
    return UnlearnSplits.of(split, read_labelled("digits:test[0:300]"))


@pytest.fixture(scope="session")
def original(threes: UnlearnSplits) -> Classifier:
    """A network that knows all digits."""
    everything = threes.retain.joined(threes.forget)
    return train_classifier(small_net(), everything, epochs=30, learning_rate=0.1)


@pytest.fixture(scope="session")
def retrained(threes: UnlearnSplits) -> Classifier:
    """One that never saw a three."""
    return train_classifier(small_net(), threes.retain, epochs=30, learning_rate=0.1)
