from __future__ import annotations

import pytest
import torch
from torch import nn

from demur.data.labelled import ForgetSplit, split_off
from demur.editing import edit
from demur.errors import UsageError
from demur.models.classifier import Classifier
from editing.test_registry import accuracy


def test_forgotten_rows_go_to_the_likeliest_class_that_stays(trained: Classifier, split: ForgetSplit) -> None:
    logits = trained.predict(split.forget)
    logits[:, 3] = -torch.inf
    wanted = split.forget.with_labels(logits.argmax(1))
    edited = edit("pseudo-label", trained, split.forget, split.retain, epochs=10, learning_rate=0.05)
    assert accuracy(trained, split.forget) > 0.9 and accuracy(trained, wanted) < 0.1
    assert accuracy(edited, split.forget) == 0 and accuracy(edited, wanted) > 0.9


def test_kept_rows_are_read_only_for_which_classes_stay(trained: Classifier, split: ForgetSplit) -> None:
    fewer = split.retain.subset([int((split.retain.labels == c).nonzero()[0]) for c in range(10) if c != 3])
    one, other = (edit("pseudo-label", trained, split.forget, kept, epochs=1) for kept in (split.retain, fewer))
    assert one.weights_hash() == other.weights_hash()


def test_the_mask_hides_a_class_and_touches_no_feature(trained: Classifier, split: ForgetSplit) -> None:
    masked = edit("head-mask", trained, split.forget, split.retain)
    assert accuracy(masked, split.forget) == 0
    assert torch.equal(masked.features(split.train), trained.features(split.train))
    others = [c for c in range(10) if c != 3]
    assert torch.equal(masked.predict(split.retain)[:, others], trained.predict(split.retain)[:, others])
    assert masked.head_layer.bias[3].item() == -1e4


@pytest.mark.parametrize("method", ["pseudo-label", "head-mask"])
def test_only_whole_classes_can_be_forgotten(method: str, trained: Classifier, split: ForgetSplit) -> None:
    some = split_off(split.train, "random:20")
    with pytest.raises(UsageError, match="this method forgets whole classes"):
        edit(method, trained, some.forget, some.retain)


def test_a_mask_needs_a_bias(split: ForgetSplit) -> None:
    bare = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 10, bias=False)), head="1")
    with pytest.raises(UsageError, match="has no bias in its last layer"):
        edit("head-mask", bare, split.forget, split.retain)
