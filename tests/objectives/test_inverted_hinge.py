"""The inverted hinge loss against worked numbers, its closed-form gradient, and autograd over full logits."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from demur.data.batch import IGNORE, Batch
from demur.models import head as head_module
from demur.models.head import Head, label_margins
from demur.models.scored import Scored
from demur.objectives import ihl, inverted_hinge

_ = IGNORE
LABELS = [[_, _, 0, 2, 4, 2], [_, _, _, 1, 3, _]]


def worked() -> Scored:
    b, t, v = torch.meshgrid(torch.arange(2), torch.arange(6), torch.arange(5), indexing="ij")
    tokens = torch.tensor(LABELS).clamp(min=0)
    batch = Batch(tokens, torch.ones_like(tokens), torch.tensor(LABELS), ["0", "1"])
    return Scored(batch, 2 * torch.sin(1.7 * t.double() + 0.9 * v + 1.3 * b), Head(torch.eye(5, dtype=torch.float64)))


def textbook(logits: Tensor, labels: Tensor) -> Tensor:
    """(n,) max(0, 1 + p_t - max over the others), out of full logits."""
    p = logits.softmax(-1)
    truth = torch.nn.functional.one_hot(labels, p.shape[-1]).bool()
    return (1 + p[truth] - p.masked_fill(truth, -torch.inf).amax(-1)).clamp(min=0)


def test_it_gives_the_worked_numbers() -> None:
    scored = worked()
    each = inverted_hinge(scored.margins)[scored.mask]
    assert each.tolist() == pytest.approx([1.409266, 0.335982, 0.760550, 0.812247, 0.588151, 0.699373], abs=6e-7)
    assert float(ihl(scored)) == pytest.approx(0.767595, abs=6e-7)


def logits_and_labels(seed: int, positions: int, vocabulary: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(positions, vocabulary, dtype=torch.float64, generator=generator)
    return logits.requires_grad_(), torch.randint(vocabulary, (positions,), generator=generator)


@given(st.integers(0, 9999), st.integers(1, 7), st.integers(2, 11))
def test_value_and_gradient_are_those_of_full_logits_and_of_the_closed_form(seed: int, n: int, vocabulary: int) -> None:
    logits, labels = logits_and_labels(seed, n, vocabulary)
    weights = torch.linspace(-1, 2, n, dtype=torch.float64)
    expected = textbook(logits, labels)
    (slope,) = torch.autograd.grad((expected * weights).sum(), logits)
    # With the identity for a head, hidden states are logits.
    found = inverted_hinge(label_margins(logits, Head(torch.eye(vocabulary, dtype=torch.float64)), labels))
    (ours,) = torch.autograd.grad((found * weights).sum(), logits)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(ours, slope)
    torch.testing.assert_close(ours.sum(1), torch.zeros(n, dtype=torch.float64))

    p = logits.detach().softmax(1)
    rows = torch.arange(n)
    true = p[rows, labels]
    rival, place = p.index_put((rows, labels), torch.tensor(-1.0, dtype=torch.float64)).max(1)
    closed = p * (rival - true)[:, None]
    closed[rows, labels] = true * (1 - true + rival)
    closed[rows, place] = -rival * (1 + true - rival)
    torch.testing.assert_close(ours, closed * weights[:, None])


def test_gradients_into_states_and_head_pass_gradcheck_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_module, "CHUNK_BYTES", 4 * 7 * 2)  # two positions at a time
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(5, 4, dtype=torch.float64, generator=generator).requires_grad_()
    weight = torch.randn(7, 4, dtype=torch.float64, generator=generator).requires_grad_()
    bias = torch.randn(7, dtype=torch.float64, generator=generator).requires_grad_()
    labels = torch.tensor([0, 6, 3, 3, 1])
    for keep in (0, 2**20):  # gradients formed again, or kept
        monkeypatch.setattr(head_module, "KEEP_BYTES", keep)
        assert torch.autograd.gradcheck(
            lambda h, w, b: label_margins(h, Head(w, b, softcap=3.0, scale=0.5), labels), (hidden, weight, bias)
        )


@given(st.floats(-8, 8))
def test_of_two_tokens_the_loss_is_twice_the_true_ones_probability(score: float) -> None:
    logits = torch.tensor([[score, 0.0]], dtype=torch.float64)
    margin = label_margins(logits, Head(torch.eye(2, dtype=torch.float64)), torch.tensor([0]))
    assert float(inverted_hinge(margin)) == pytest.approx(2 * float(logits.softmax(1)[0, 0]))


def test_a_uniform_distribution_is_a_tie() -> None:
    margin = label_margins(torch.zeros(3, 9), Head(torch.eye(9)), torch.tensor([0, 4, 8]))
    assert inverted_hinge(margin).tolist() == pytest.approx([1.0] * 3)


def test_the_true_token_is_not_its_own_rival() -> None:
    # Were it, the loss would be 1 wherever the model is sure, and teach nothing.
    sure = torch.tensor([[20.0, 0.0, 0.0]], dtype=torch.float64)
    margin = label_margins(sure, Head(torch.eye(3, dtype=torch.float64)), torch.tensor([0]))
    assert float(inverted_hinge(margin)) == pytest.approx(2.0, abs=1e-6)


def test_logits_that_look_like_probabilities_are_taken_for_logits() -> None:
    logits, labels = torch.tensor([[0.7, 0.2, 0.1]], dtype=torch.float64), torch.tensor([0])
    p = logits.softmax(1)[0]
    margin = label_margins(logits, Head(torch.eye(3, dtype=torch.float64)), labels)
    assert float(margin) == pytest.approx(float(p[0] - p[1])) and float(margin) != pytest.approx(0.5, abs=0.1)


def test_a_step_lowers_the_true_token_and_raises_the_runner_up_alone() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.5, 0.0]], dtype=torch.float64, requires_grad=True)
    label_margins(logits, Head(torch.eye(4, dtype=torch.float64)), torch.tensor([0])).sum().backward()
    step = -logits.grad[0]
    assert float(step[0]) < 0 < float(step[1]) and float(step[1]) > 2 * float(step[2:].max())


def test_the_mean_is_over_label_tokens_of_the_whole_accumulated_batch() -> None:
    scored = worked()
    scored._token_total = 12.0
    assert float(ihl(scored)) == pytest.approx(0.767595 / 2, abs=1e-6)
