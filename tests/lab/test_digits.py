from __future__ import annotations

from pathlib import Path

import pytest
import torch

from demur.data.labelled_sources import read_labelled
from demur.lab.digits import new_resnet, trained_resnet


def test_a_network_is_trained_once_and_then_read(lab_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = read_labelled("digits:train[0:300]")
    first = trained_resnet(data, seed=1, epochs=6)
    monkeypatch.setattr("demur.lab.digits.train_classifier", None)
    assert trained_resnet(data, seed=1, epochs=6).weights_hash() == first.weights_hash()
    assert float((first.predict(data).argmax(1) == data.labels).float().mean()) > 0.8


def test_the_seed_decides_the_initial_weights() -> None:
    assert new_resnet(1).weights_hash() == new_resnet(1).weights_hash() != new_resnet(2).weights_hash()
    assert new_resnet(classes=3, channels=3).logits(torch.zeros(1, 3, 8, 8)).shape == (1, 3)
