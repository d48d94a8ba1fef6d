from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from demur.data.labelled import ForgetSplit, Labelled
from demur.editing import edit
from demur.editing.boundary import nearest_neighbours
from demur.models.classifier import Classifier


def _accuracy(model: Classifier, data: Labelled) -> float:
    return float((model.predict(data).argmax(1) == data.labels).float().mean())


def test_neighbours_are_one_signed_step_up_the_loss_rounded_to_pixels(trained: Classifier, split: ForgetSplit) -> None:
    inputs, labels = split.forget.batch()
    near = inputs.clone().requires_grad_()
    F.cross_entropy(trained.logits(near), labels).backward()
    expected = torch.round((inputs + 0.1 * near.grad.sign()).clamp(0, 1) * 255) / 255  # type: ignore[union-attr]
    found = nearest_neighbours(trained, split.forget, 0.1, batch_size=7)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert F.cross_entropy(trained.logits(found), labels) > F.cross_entropy(trained.logits(inputs), labels)


def test_what_is_no_picture_is_neither_rounded_nor_bounded(trained: Classifier, split: ForgetSplit) -> None:
    inputs = split.forget.inputs * 3 - 1
    data = Labelled(inputs, split.forget.labels, split.forget.classes)
    moved = (nearest_neighbours(trained, data, 0.5) - inputs).abs()
    assert set(moved.mul(1e4).round().unique().tolist()) <= {0.0, 5000.0}
    assert moved.max() > 0.4


def test_shrinking_teaches_the_neighbours_labels_of_the_model_as_it_was(
    trained: Classifier, split: ForgetSplit
) -> None:
    labels = trained.logits(nearest_neighbours(trained, split.forget, 0.2)).argmax(1)
    away = split.forget.with_labels(labels)
    edited = edit("boundary-shrink", trained, split.forget, split.retain, step=0.2, learning_rate=0.05, epochs=20)
    assert _accuracy(edited, away) > _accuracy(trained, away) + 0.3
    assert edited.facts["crossed"] == float((labels != split.forget.labels).float().mean()) > 0.5
    assert _accuracy(edited, split.forget) < 0.5


def test_expanding_with_no_epochs_leaves_every_logit(trained: Classifier, split: ForgetSplit) -> None:
    edited = edit("boundary-expand", trained, split.forget, split.retain, epochs=0)
    assert torch.equal(edited.predict(split.retain), trained.predict(split.retain))
    assert edited.classes == trained.classes == 10


def test_expanding_moves_the_class_into_one_that_is_gone(trained: Classifier, split: ForgetSplit) -> None:
    edited = edit("boundary-expand", trained, split.forget, split.retain, learning_rate=0.05, epochs=10)
    assert edited.classes == 10 and trained.classes == 10
    own = [model.predict(split.forget).softmax(1)[:, 3].mean() for model in (trained, edited)]
    assert own[1] < 0.6 * own[0]


@pytest.mark.parametrize("name", ["boundary-shrink", "boundary-expand"])
def test_batch_statistics_follow_the_forget_rows_in_training_mode_only(name: str, split: ForgetSplit) -> None:
    torch.manual_seed(0)
    model = Classifier(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10)), head="2")
    still, moved = (
        edit(name, model, split.forget, split.retain, learning_rate=0.0, training=training)
        for training in (False, True)
    )
    assert still.weights_hash() == model.weights_hash() != moved.weights_hash()
    assert moved.facts["training"] and not still.facts["training"]
