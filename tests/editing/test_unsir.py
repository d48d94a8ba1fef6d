from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from demur.data.labelled import ForgetSplit, Labelled
from demur.editing import edit
from demur.editing.unsir import class_noise
from demur.errors import UsageError
from demur.models.classifier import Classifier


def _accuracy(model: Classifier, data: Labelled) -> float:
    return float((model.predict(data).argmax(1) == data.labels).float().mean())


def test_noise_makes_the_loss_of_its_class_as_high_as_it_gets(trained: Classifier, split: ForgetSplit) -> None:
    def loss(steps: int, penalty: float) -> tuple[float, float]:
        torch.manual_seed(0)
        noise = class_noise(trained, 3, split.forget.inputs[0], rows=8, steps=steps, penalty=penalty)
        assert noise.shape == (8, *split.forget.inputs.shape[1:])
        return float(F.cross_entropy(trained.logits(noise), torch.full((8,), 3))), float(noise.square().mean())

    none, some, many = (loss(steps, 0.0)[0] for steps in (0, 5, 25))
    assert none < some < many
    assert loss(25, 1.0)[1] < loss(25, 0.1)[1] < loss(25, 0.0)[1]


def test_a_class_is_forgotten_and_repair_brings_the_others_back(trained: Classifier, split: ForgetSplit) -> None:
    hurt, mended = (
        edit("unsir", trained, split.forget, split.retain, learning_rate=1e-2, repair_epochs=epochs)
        for epochs in (0, 10)
    )
    assert _accuracy(mended, split.forget) < 0.1
    assert _accuracy(mended, split.retain) > max(0.8, _accuracy(hurt, split.retain))
    assert mended.facts["noise_loss"] > 5


def test_classes_that_are_also_kept_are_refused(trained: Classifier, split: ForgetSplit) -> None:
    with pytest.raises(UsageError, match="unsir forgets whole classes, and '3' has rows to keep"):
        edit("unsir", trained, split.forget, split.retain.joined(split.forget.subset([0])))
