from __future__ import annotations

import numpy as np
import pytest
import torch

from audits.tiny_world import tiny_data, tiny_lm
from demur.audits.gradnorm import gradient_norms
from demur.data import Encoded, question_answer
from demur.models import encode


@pytest.mark.parametrize("p", [1.0, 2.0, float("inf")])
def test_the_score_is_the_mean_of_the_tensors_norms_over_all_labels_but_the_last(p: float) -> None:
    lm = tiny_lm()
    encoded = encode(lm, *question_answer(tiny_data().forget))
    for item, found in zip(encoded, gradient_norms(lm, encoded, p=p), strict=True):
        labels = torch.tensor([item.input_ids])
        labels[0, : item.prompt_length] = -100
        labels[0, -1] = -100
        lm.model.zero_grad()
        lm.model(input_ids=torch.tensor([item.input_ids]), labels=labels).loss.backward()
        norms = [w.grad.norm(p=p).item() for w in lm.model.parameters() if w.grad is not None]
        assert found == pytest.approx(np.mean(norms), rel=1e-4)
    assert len(norms) > 10


def test_the_model_is_left_as_it_was() -> None:
    lm = tiny_lm()
    weights = list(lm.model.parameters())
    weights[0].requires_grad_(False)
    before = [w.detach().clone() for w in weights]
    lm.model.train()
    gradient_norms(lm, encode(lm, ["a"], ["b c"]))
    assert lm.model.training
    assert [w.requires_grad for w in weights] == [False] + [True] * (len(weights) - 1)
    assert all(w.grad is None for w in weights)
    assert all(torch.equal(a, b) for a, b in zip(before, weights, strict=True))


def test_frozen_models_are_measured_too() -> None:
    lm = tiny_lm()
    encoded = encode(lm, ["a"], ["b c"])
    trainable = gradient_norms(lm, encoded)
    lm.model.requires_grad_(False)
    assert gradient_norms(lm, encoded) == pytest.approx(trainable)


def test_eval_mode_is_free_of_dropout_and_train_mode_is_not() -> None:
    lm = tiny_lm()
    for layer in lm.model.model.layers:
        layer.self_attn.attention_dropout = 0.5
    encoded = encode(lm, ["a"], ["b c d"])
    assert gradient_norms(lm, encoded) == pytest.approx(gradient_norms(lm, encoded))
    assert gradient_norms(lm, encoded, strict=False) != pytest.approx(gradient_norms(lm, encoded, strict=False))


def test_an_answer_that_is_only_its_end_has_no_score() -> None:
    assert np.isnan(gradient_norms(tiny_lm(), [Encoded([5, 6, 7], 2)])).all()
