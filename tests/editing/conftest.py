from __future__ import annotations

import pytest
import torch
from torch import nn

from demur.data.labelled import ForgetSplit, split_off
from demur.data.labelled_sources import read_labelled
from demur.models import train_classifier
from demur.models.classifier import Classifier


def small_net(seed: int = 0) -> Classifier:
    """A network of two layers for 8 × 8 digits."""
    torch.manual_seed(seed)
    return Classifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10)), head="3")


@pytest.fixture(scope="session")
def split() -> ForgetSplit:
    """300 digits, of which all threes are to be forgotten."""
    return split_off(read_labelled("digits:train[0:300]"), "class:3")


@pytest.fixture(scope="session")
def trained(split: ForgetSplit) -> Classifier:
    """A network that knows them."""
    torch.set_num_threads(1)
    return train_classifier(small_net(), split.train, epochs=15, learning_rate=0.1)
