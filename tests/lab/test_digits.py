from __future__ import annotations

from pathlib import Path

import pytest
import torch

from demur.cli.lab import app
from demur.data.labelled_sources import read_labelled
from demur.errors import UsageError
from demur.lab import is_built, model_path, rows
from demur.lab.digits import new_resnet, trained_resnet
from demur.models import load_classifier


def test_a_network_is_trained_once_and_then_read(lab_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = read_labelled("digits:train[0:300]")
    first = trained_resnet(data, seed=1, epochs=6)
    monkeypatch.setattr("demur.models.descent.train_classifier", None)
    assert trained_resnet(data, seed=1, epochs=6).weights_hash() == first.weights_hash()
    assert float((first.predict(data).argmax(1) == data.labels).float().mean()) > 0.8


def test_the_seed_decides_the_initial_weights() -> None:
    assert new_resnet(1).weights_hash() == new_resnet(1).weights_hash() != new_resnet(2).weights_hash()
    assert new_resnet(classes=3, channels=3).logits(torch.zeros(1, 3, 8, 8)).shape == (1, 3)


def test_the_lab_model_is_the_network_trained_on_all_training_digits(
    lab_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "lab:digits-resnet@seed=2,epochs=1"
    assert not is_built(name)
    made = load_classifier(name)
    assert made.classes == 10 and made.path == model_path(name)
    assert made.weights_hash() == trained_resnet(read_labelled("digits:train"), seed=2, epochs=1).weights_hash()
    monkeypatch.setattr("demur.lab.digits.trained_resnet", None)
    assert load_classifier(name).weights_hash() == made.weights_hash()


def test_it_has_settings_but_no_rows() -> None:
    with pytest.raises(UsageError, match="is a classifier and has no rows: its data are digits:train"):
        rows("digits-resnet:forget")
    for wrong in ("epochs=0", "seed=-1"):
        with pytest.raises(UsageError, match="needs epochs of at least 1"):
            model_path(f"digits-resnet@{wrong}")


def test_the_list_says_what_it_is_trained_on() -> None:
    from typer.testing import CliRunner

    listed = CliRunner().invoke(app, ["list"]).output
    assert "lab:digits-resnet" in listed and "digits:train" in listed and "lab:digits-resnet:SPLIT" not in listed
