"""The unlearning and preference losses against closed forms, limits, worked numbers and TRL."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from demur.data.batch import IGNORE, Batch
from demur.models.head import Head
from demur.models.scored import Scored, StoredScores
from demur.objectives import dpo_loss, ga, graddiff, idkdpo, kl, nll, npo, npo_loss, sft, simnpo, simnpo_loss

_ = IGNORE
LABELS = [[_, _, 0, 2, 4, 2], [_, _, _, 1, 3, _]]
ALTERNATE_LABELS = [[_, _, 1, 0, 2, 3], [_, _, _, 2, 0, _]]


def worked(labels: list[list[int]], frequency: float, phase: float) -> Scored:
    """A batch whose logits are 2 sin(frequency t + phase v + 1.3 b), in float64."""
    b, t, v = torch.meshgrid(torch.arange(2), torch.arange(6), torch.arange(5), indexing="ij")
    logits = 2 * torch.sin(frequency * t.double() + phase * v + 1.3 * b)
    tokens = torch.tensor(labels).clamp(min=0)
    batch = Batch(tokens, torch.ones_like(tokens), torch.tensor(labels), ["0", "1"])
    # With the identity for a head, hidden states are logits.
    return Scored(batch, logits, Head(torch.eye(5, dtype=torch.float64)))


def with_reference(labels: list[list[int]] = LABELS) -> Scored:
    scored = worked(labels, 1.7, 0.9)
    reference = worked(labels, 1.1, 0.6)
    return Scored(scored.batch, _all_hidden(1.7, 0.9), scored.head, reference=reference)


def _all_hidden(frequency: float, phase: float) -> Tensor:
    b, t, v = torch.meshgrid(torch.arange(2), torch.arange(6), torch.arange(5), indexing="ij")
    return 2 * torch.sin(frequency * t.double() + phase * v + 1.3 * b)


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        (lambda: -with_reference().logps[0], 6.493062),
        (lambda: -with_reference().logps[1], 6.011141),
        (lambda: -with_reference().reference.logps[0], 8.041626),
        (lambda: -with_reference().reference.logps[1], 3.539284),
        (lambda: ga(with_reference()), -2.084034),
        (lambda: graddiff(with_reference()), -2.084034),
        (lambda: nll(with_reference()), 2.084034),
        (lambda: sft(with_reference()), 2.084034),
        (lambda: npo(with_reference()), 13.507425),
        (lambda: npo(with_reference(), beta=1.0), 1.822345),
        (lambda: idkdpo(with_reference(ALTERNATE_LABELS), with_reference()), 14.345844),
        (lambda: simnpo(with_reference()), 1.496635e-4),
    ],
)
def test_objectives_give_the_worked_numbers(measured: Callable[[], Tensor], expected: float) -> None:
    assert float(measured()) == pytest.approx(expected, rel=2e-6)


def test_kl_over_all_positions_gives_the_worked_number() -> None:
    # Twelve positions: shift the logits one to the right, so that every one of them predicts some label.
    hidden = torch.nn.functional.pad(_all_hidden(1.7, 0.9), (0, 0, 0, 1))
    reference_hidden = torch.nn.functional.pad(_all_hidden(1.1, 0.6), (0, 0, 0, 1))
    labels = torch.zeros(2, 7, dtype=torch.long)
    batch = Batch(labels, torch.ones_like(labels), labels, ["0", "1"])
    head = Head(torch.eye(5, dtype=torch.float64))
    scored = Scored(batch, hidden, head, reference=Scored(batch, reference_hidden, head))
    assert float(kl(scored)) == pytest.approx(1.368544, rel=1e-6)


logps = st.lists(st.floats(-60, -0.01), min_size=1, max_size=6)
betas = st.floats(0.01, 5)


def leaf(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


@settings(deadline=None)
@given(logps, betas)
def test_npo_at_the_reference_is_a_constant_with_gradient_ascents_gradient(values: list[float], beta: float) -> None:
    policy = leaf(values)
    loss = npo_loss(policy, policy.detach(), beta)
    loss.backward()
    assert float(loss) == pytest.approx(2 / beta * math.log(2))
    torch.testing.assert_close(policy.grad, torch.full_like(policy, 1 / len(values)))


@settings(deadline=None)
@given(st.lists(st.floats(-3, 3), min_size=1, max_size=5))
def test_npo_expands_to_gradient_ascent_plus_a_quadratic(ratios: list[float]) -> None:
    r = torch.tensor(ratios, dtype=torch.float64)
    beta = 1e-3
    excess = float(npo_loss(r, torch.zeros_like(r), beta)) - 2 / beta * math.log(2)
    assert excess == pytest.approx(float(r.mean() + beta * r.square().mean() / 4), abs=1e-8)


@settings(deadline=None)
@given(logps, betas, st.integers(0, 99))
def test_npo_gradient_is_gradient_ascent_weighted_by_how_much_is_left(
    values: list[float], beta: float, seed: int
) -> None:
    policy = leaf(values)
    reference = policy.detach() + torch.randn(
        len(values), dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    npo_loss(policy, reference, beta).backward()
    weight = 2 * torch.sigmoid(beta * (policy.detach() - reference))
    torch.testing.assert_close(policy.grad, weight / len(values))


def test_npo_gradient_tends_to_gradient_ascent_as_beta_vanishes() -> None:
    policy, reference = leaf([-3.0, -20.0]), torch.tensor([-1.0, -2.0], dtype=torch.float64)
    npo_loss(policy, reference, 1e-7).backward()
    torch.testing.assert_close(policy.grad, torch.full((2,), 0.5, dtype=torch.float64), atol=1e-5, rtol=0)


def test_one_npo_step_lowers_the_forget_probability() -> None:
    policy = leaf([-3.0, -20.0])
    npo_loss(policy, policy.detach(), 0.1).backward()
    assert bool((policy.grad > 0).all())  # descent subtracts a positive number


@settings(deadline=None)
@given(st.lists(st.floats(-9, -0.01), min_size=1, max_size=5), st.floats(0.1, 6), st.floats(-1, 1))
def test_simnpo_is_npo_with_a_length_reference(means: list[float], beta: float, delta: float) -> None:
    n = 7
    mean = torch.tensor(means, dtype=torch.float64)
    reference = torch.full_like(mean, -n * delta)
    # NPO's factor 2/β counts β/n, so n divides out.
    expected = npo_loss(n * mean, reference, beta / n) / n
    torch.testing.assert_close(simnpo_loss(mean, beta, delta), expected)


@settings(deadline=None)
@given(logps, betas)
def test_npo_is_dpo_with_the_chosen_ratio_at_zero(values: list[float], beta: float) -> None:
    rejected = torch.tensor(values, dtype=torch.float64)
    reference = rejected.flip(0) * 0.8
    zero = torch.zeros_like(rejected)
    expected = 2 / beta * dpo_loss(zero, rejected, zero, reference, beta)
    torch.testing.assert_close(npo_loss(rejected, reference, beta), expected)


@pytest.mark.parametrize(
    "function",
    [
        lambda p: npo_loss(p, torch.tensor([-2.0, -9.0], dtype=torch.float64), 0.7),
        lambda p: simnpo_loss(p, 2.5, 0.1),
        lambda p: dpo_loss(p, p * 0.3, torch.zeros_like(p), torch.ones_like(p), 0.4),
    ],
)
def test_losses_pass_gradcheck(function: Callable[[Tensor], Tensor]) -> None:
    assert torch.autograd.gradcheck(function, leaf([-3.0, -8.0]))


def test_no_gradient_flows_into_the_reference() -> None:
    policy, reference = leaf([-3.0]), leaf([-2.0])
    npo_loss(policy, reference).backward()
    assert reference.grad is None


@pytest.mark.parametrize("beta", [0.0, -1.0, math.nan, math.inf])
def test_beta_must_be_a_positive_number(beta: float) -> None:
    with pytest.raises(ValueError, match="beta must be a positive number"):
        npo_loss(leaf([-1.0]), torch.zeros(1), beta)
    with pytest.raises(ValueError, match="beta must be a positive number"):
        simnpo_loss(leaf([-1.0]), beta)


def test_shapes_that_would_broadcast_are_refused() -> None:
    with pytest.raises(ValueError, match="shapes differ"):
        npo_loss(leaf([-1.0, -2.0]), torch.zeros(1))


def test_stored_reference_scores_serve_as_well_as_computed_ones() -> None:
    scored = with_reference()
    stored = StoredScores(scored.mask, scored.reference.token_logps)
    again = Scored(scored.batch, _all_hidden(1.7, 0.9), scored.head, reference=stored)
    torch.testing.assert_close(npo(again), npo(scored))
