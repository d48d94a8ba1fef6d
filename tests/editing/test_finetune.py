from __future__ import annotations

from typing import Any

import pytest
import torch

from demur.data.labelled import ForgetSplit
from demur.editing import edit
from demur.models.classifier import Classifier
from editing.test_registry import accuracy


def run(name: str, trained: Classifier, split: ForgetSplit, **options: Any) -> Classifier:
    return edit(name, trained, split.forget, split.retain, seed=1, **{"epochs": 2, "learning_rate": 0.01, **options})


def test_retraining_never_saw_the_class_and_fine_tuning_remembers_it(trained: Classifier, split: ForgetSplit) -> None:
    again = edit("retrain", trained, split.forget, split.retain, epochs=15, learning_rate=0.1)
    assert accuracy(again, split.forget) == 0 and accuracy(again, split.retain) > 0.9
    assert accuracy(run("ft", trained, split), split.forget) > 0.7


def test_ascent_raises_the_loss_on_the_forget_set(trained: Classifier, split: ForgetSplit) -> None:
    loss = lambda model: float(torch.nn.functional.cross_entropy(model.predict(split.forget), split.forget.labels))  # noqa: E731
    assert loss(run("ga", trained, split)) > loss(trained) + 0.1


def test_the_limits_of_the_mixed_losses_are_the_plain_ones(trained: Classifier, split: ForgetSplit) -> None:
    tuned = run("ft", trained, split)
    assert run("l1-sparse", trained, split, gamma=0.0).weights_hash() == tuned.weights_hash()
    assert run("neggrad+", trained, split, alpha=1.0, weight_decay=5e-4).weights_hash() == tuned.weights_hash()
    steps, turn = (-(-len(data) // 8) for data in (split.retain, split.forget))
    short, batch = split.retain.subset(range(8 * turn * (steps // turn))), {"batch_size": 8}
    mixed = edit("neggrad+", trained, split.forget, short, seed=1, epochs=1, alpha=0.0, weight_decay=5e-4, **batch)
    ascended = run("ga", trained, split, epochs=steps // turn, **batch)
    assert mixed.weights_hash() == ascended.weights_hash()


def test_the_penalty_makes_weights_smaller(trained: Classifier, split: ForgetSplit) -> None:
    size = lambda model: sum(float(p.detach().abs().sum()) for p in model.module.parameters())  # noqa: E731
    assert size(run("l1-sparse", trained, split, gamma=0.1)) < 0.9 * size(run("ft", trained, split))


def test_alpha_of_the_mix_is_a_share(trained: Classifier, split: ForgetSplit) -> None:
    with pytest.raises(ValueError, match="alpha must be in"):
        run("neggrad+", trained, split, alpha=1.5)
