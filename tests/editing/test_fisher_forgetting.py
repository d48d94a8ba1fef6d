from __future__ import annotations

import pytest
import torch

from demur.data.labelled import ForgetSplit
from demur.editing import edit
from demur.editing.fisher_forgetting import expected_fisher, noise_variance
from demur.errors import UsageError
from demur.models.classifier import Classifier


def test_no_noise_is_the_identity(trained: Classifier, split: ForgetSplit) -> None:
    assert edit("fisher", trained, split.forget, split.retain, alpha=0.0).weights_hash() == trained.weights_hash()


def test_the_information_is_the_sum_over_classes_one_gradient_at_a_time(
    trained: Classifier, split: ForgetSplit
) -> None:
    data = split.retain.subset(range(7))
    found = expected_fisher(trained, data, batch_size=3)
    model = trained.copied()
    expected = {name: torch.zeros_like(p) for name, p in model.module.named_parameters()}
    for i in range(7):
        for y in range(10):
            model.module.zero_grad()
            logps = model.logits(data.inputs[i : i + 1])[0].log_softmax(0)
            logps[y].backward()
            for name, p in model.module.named_parameters():
                expected[name] += float(logps[y].exp()) * p.grad.square() / 7  # type: ignore[union-attr]
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-9)


def test_noise_is_bounded_even_along_a_row_and_tenfold_for_biases_and_the_head() -> None:
    matrix = torch.tensor([[1.0, 0.5], [0.0, 1.0]])
    # (1 + 2)/2 and (1000 + 1)/2; in the head 1/0 ends at 100.
    torch.testing.assert_close(
        noise_variance(matrix, 2.0, head=False), torch.tensor([[3.0, 3.0], [1001.0, 1001.0]]), rtol=1e-5, atol=0
    )
    torch.testing.assert_close(
        noise_variance(matrix, 2.0, head=True), torch.tensor([[30.0, 30.0], [1010.0, 1010.0]]), rtol=1e-5, atol=0
    )
    torch.testing.assert_close(
        noise_variance(torch.tensor([0.0, 1.0]), 1.0, head=False), torch.tensor([1e4, 10.0]), rtol=1e-5, atol=0
    )


def test_more_alpha_is_more_noise_in_the_same_directions(trained: Classifier, split: ForgetSplit) -> None:
    little, much = (edit("fisher", trained, split.forget, split.retain, alpha=a, seed=1) for a in (1e-8, 4e-8))
    assert much.facts["step"] == pytest.approx(2 * little.facts["step"], rel=1e-3)
    with pytest.raises(UsageError, match="alpha must be at least 0"):
        edit("fisher", trained, split.forget, split.retain, alpha=-1.0)
