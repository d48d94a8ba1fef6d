"""The objectives beside NPO against worked numbers, closed forms, limits and finite differences."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from demur import UsageError
from demur.data.batch import IGNORE, Batch
from demur.models import Head, Scored
from demur.objectives import (
    altpo,
    ceu,
    control_vector,
    dual_step,
    embed_diff,
    ga,
    idkdpo,
    objectives,
    pdu,
    rmu,
    satimp,
    satimp_weights,
    state_distance,
    undial,
    wga,
)
from objectives.worked import LABELS, logits, worked


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (lambda: undial(worked(), beta=3.0), 2.990774),
        (lambda: undial(worked()), 3.004246),
        (lambda: wga(worked()), -0.236632),
        (lambda: satimp(worked()), -0.00342150),
        (lambda: ceu(worked()), 1.103633),
        (lambda: ceu(worked(), skip=0), 1.217076),
        (lambda: pdu(worked(unshifted=True)), 3.267571),
    ],
    ids=["undial 3", "undial 10", "wga", "satimp", "ceu", "ceu skip 0", "pdu"],
)
def test_objectives_give_the_worked_numbers(loss: Callable[[], Tensor], expected: float) -> None:
    assert float(loss()) == pytest.approx(expected, abs=1e-6)


def test_losses_are_what_full_logits_give() -> None:
    mask = torch.tensor(LABELS)[:, 1:] != IGNORE
    z, z_ref = (logits(*p)[:, :-1][mask] for p in ((1.7, 0.9), (1.1, 0.6)))
    labels = torch.tensor(LABELS)[:, 1:][mask]
    onehot = F.one_hot(labels, 5)
    assert float(undial(worked(), 10.0)) == pytest.approx(float(F.cross_entropy(z, (z_ref - 10 * onehot).softmax(1))))
    without = z.masked_fill(onehot.bool(), -math.inf).softmax(1)
    assert float(ceu(worked(), skip=0)) == pytest.approx(float(F.cross_entropy(z, without)))
    first = torch.tensor([True, False, False, False, True, False])
    assert float(ceu(worked())) == pytest.approx(float(F.cross_entropy(z[~first], without[~first])))
    assert float(pdu(worked())) == pytest.approx(float((z.amax(1) - z.mean(1)).square().mean()))


def gradient(loss: Callable[[Scored], Tensor], z: Tensor | None = None) -> Tensor:
    leaf = (logits(1.7, 0.9) if z is None else z).clone().requires_grad_(True)
    (found,) = torch.autograd.grad(loss(worked(leaf)), leaf)
    return found


@pytest.mark.parametrize(
    "loss",
    [lambda s: undial(s, 3.0), pdu, lambda s: s.adjusted_cross_entropy(math.inf, s.reference).square().sum()],
    ids=["undial", "pdu", "label taken out"],
)
def test_gradients_are_those_of_finite_differences(loss: Callable[[Scored], Tensor]) -> None:
    assert torch.autograd.gradcheck(lambda z: loss(worked(z)), (logits(1.7, 0.9).requires_grad_(True),))


def test_ceu_takes_its_target_for_a_constant() -> None:
    frozen = worked()
    expected = gradient(lambda s: s.token_mean(s.adjusted_cross_entropy(math.inf, frozen)))
    torch.testing.assert_close(gradient(lambda s: ceu(s, skip=0)), expected)


@given(st.integers(0, 99))
def test_ceu_lowers_the_label_by_its_own_probability_and_raises_the_others_in_proportion(seed: int) -> None:
    z = 3 * torch.randn(2, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    mask = torch.tensor(LABELS)[:, 1:] != IGNORE
    found = gradient(lambda s: ceu(s, skip=0), z)[:, :-1][mask] * mask.sum()
    p = z[:, :-1][mask].softmax(1)
    label = torch.tensor(LABELS)[:, 1:][mask][:, None]
    torch.testing.assert_close(found.gather(1, label), p.gather(1, label))
    rest = -p * p.gather(1, label) / (1 - p.gather(1, label))
    torch.testing.assert_close(found.scatter(1, label, 0.0), rest.scatter(1, label, 0.0))


def test_undial_without_a_penalty_is_self_distillation_and_its_penalty_only_lowers_the_label() -> None:
    at_reference = Scored(worked().batch, logits(1.1, 0.6), worked().head, reference=worked().reference)
    assert float(undial(at_reference, 0.0)) == pytest.approx(float(at_reference.token_mean(at_reference.entropy)))
    torch.testing.assert_close(
        gradient(lambda s: undial(s, 0.0)), gradient(lambda s: s.kl(s.reference)), atol=1e-12, rtol=1e-9
    )
    assert float(gradient(lambda s: undial(s, 0.0), logits(1.1, 0.6)).abs().max()) < 1e-12


def test_undial_tends_to_the_target_without_the_label() -> None:
    none_left = worked().token_mean(worked().adjusted_cross_entropy(math.inf, worked().reference))
    assert float(undial(worked(), 60.0)) == pytest.approx(float(none_left), abs=1e-12)


@pytest.mark.parametrize("loss", [lambda s: wga(s, 0.0), lambda s: satimp(s, 0.0, 0.0)], ids=["wga", "satimp"])
def test_without_exponents_weighted_ascent_is_gradient_ascent(loss: Callable[[Scored], Tensor]) -> None:
    assert float(loss(worked())) == pytest.approx(float(ga(worked())), rel=1e-12)
    torch.testing.assert_close(gradient(loss), gradient(ga))


@given(st.lists(st.floats(-40, -1e-6), min_size=1, max_size=6), st.floats(0, 6), st.floats(0, 3))
def test_weights_are_powers_of_the_probability_and_no_gradient_flows_through_them(
    values: list[float], beta1: float, beta2: float
) -> None:
    logps = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    weights = satimp_weights(logps, beta1, beta2)
    p = logps.detach().exp()
    torch.testing.assert_close(weights, p**beta1 * (1 - p).clamp(min=0) ** beta2, atol=1e-12, rtol=1e-6)
    assert not weights.requires_grad


def test_weights_of_a_probability_rounded_above_one_are_numbers() -> None:
    assert bool(satimp_weights(torch.tensor([1e-7, 0.0]), 5.0, 0.5).isfinite().all())


def test_every_sibling_lowers_the_labels_probability_in_one_step() -> None:
    start = logits(1.1, 0.6)  # the reference's
    for loss in (undial, wga, satimp, lambda s: ceu(s, skip=0)):
        before, after = worked(start), worked(start - 0.1 * gradient(loss, start))
        assert float(after.logps.sum()) < float(before.logps.sum())


def test_pdu_flattens_and_its_multiplier_follows_the_excess() -> None:
    before, after = pdu(worked()), pdu(worked(logits(1.7, 0.9) - 0.1 * gradient(pdu)))
    assert float(after) < float(before)
    assert float(pdu(worked(torch.ones(2, 6, 5, dtype=torch.float64)))) == 0.0
    assert dual_step(1.0, 0.5, 2.0) == 2.0
    assert dual_step(1.0, -0.25, 2.0) == 0.5
    assert dual_step(1.0, -9.0, 2.0) == 0.0


def test_altpo_is_idkdpo_with_other_answers() -> None:
    assert float(altpo(worked(), worked(), 0.3)) == float(idkdpo(worked(), worked(), 0.3))
    assert objectives.get("altpo").facts["generated"] and not objectives.get("idkdpo").facts["generated"]


def states(seed: int) -> Tensor:
    return torch.randn(2, 6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def at_layer(hidden: Tensor, reference: Tensor | None = None) -> Scored:
    batch = worked().batch
    frozen = None if reference is None else Scored(batch, None, Head(torch.eye(3)), {7: reference})
    return Scored(batch, None, Head(torch.eye(3)), {7: hidden}, frozen)


def test_rmu_is_the_mean_of_each_sequences_mean_distance() -> None:
    hidden, target = states(0), control_vector(3, 2.0, seed=4)
    expected = [
        sum(float((hidden[b, t] - target).square().mean()) for t in places) / len(places)
        for b, places in enumerate(([2, 3, 4, 5], [3, 4]))
    ]
    assert float(rmu(at_layer(hidden), seed=4)) == pytest.approx(sum(expected) / 2, rel=1e-6)


def test_rmu_reads_label_positions_alone_and_pulls_them_to_the_vector() -> None:
    hidden = states(0).requires_grad_(True)
    (found,) = torch.autograd.grad(rmu(at_layer(hidden)), hidden)
    mask = torch.tensor(LABELS) != IGNORE
    assert bool((found[~mask] == 0).all()) and bool((found[mask] != 0).any())
    assert torch.autograd.gradcheck(lambda h: rmu(at_layer(h)), (hidden,))
    there = control_vector(3, 2.0).to(torch.float64).expand(2, 6, 3)
    assert float(rmu(at_layer(there))) < 1e-12


@given(st.integers(1, 40), st.floats(0.1, 30), st.integers(0, 9))
def test_the_control_vector_is_fixed_positive_and_as_long_as_asked(size: int, coefficient: float, seed: int) -> None:
    vector = control_vector(size, coefficient, seed)
    assert float(vector.norm()) == pytest.approx(coefficient, rel=1e-5)
    assert bool((vector >= 0).all()) and torch.equal(vector, control_vector(size, coefficient, seed))


def test_embed_diff_is_zero_at_the_frozen_model_and_grows_with_the_distance() -> None:
    assert float(embed_diff(at_layer(states(0), states(0)))) == 0.0
    assert float(embed_diff(at_layer(states(0) + 2.0, states(0)))) == pytest.approx(4.0)
    reference = states(1).requires_grad_(True)
    embed_diff(at_layer(states(0).requires_grad_(True), reference)).backward()
    assert reference.grad is None


def test_state_distance_counts_sequences_alike_however_long() -> None:
    mask = torch.tensor([[True] * 4, [True, False, False, False]])
    values = torch.tensor([[1.0], [1.0], [1.0], [1.0], [3.0]])
    assert float(state_distance(values, torch.zeros(1), mask)) == pytest.approx((1 + 9) / 2)


def test_a_forward_that_ended_at_a_layer_has_no_logits() -> None:
    with pytest.raises(UsageError, match="ended at a decoder layer"):
        _ = at_layer(states(0)).token_logps
    with pytest.raises(UsageError, match=r"score with layers=\[3\]"):
        at_layer(states(0)).label_states(3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: undial(worked(), -1.0), "beta must be a number of at least 0"),
        (lambda: wga(worked(), math.nan), "beta must be a number of at least 0"),
        (lambda: satimp(worked(), 5.0, -1.0), "beta2 must be a number of at least 0"),
        (lambda: ceu(worked(), skip=-1), "skip must be a number of at least 0"),
        (lambda: rmu(at_layer(states(0)), coefficient=-2.0), "coefficient must be a number of at least 0"),
        (lambda: altpo(worked(), worked(), 0.0), "beta must be a positive number"),
    ],
)
def test_options_out_of_range_are_refused(call: Callable[[], Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_an_answer_no_longer_than_what_is_skipped_teaches_nothing() -> None:
    assert float(ceu(worked(), skip=9)) == 0.0


def test_skipped_tokens_leave_the_accumulated_mean_exact() -> None:
    batch = worked().batch

    def part(row: int, total: float | None) -> Scored:
        own = Batch(
            batch.input_ids[row : row + 1],
            batch.attention_mask[row : row + 1],
            batch.labels[row : row + 1],
            ["x"],
            total,
        )
        return Scored(own, logits(1.7, 0.9)[row : row + 1], worked().head)

    # Two passes of one sequence each with six labels in all: each mean divides by three, and the two are averaged.
    assert float((ceu(part(0, 3.0)) + ceu(part(1, 3.0))) / 2) == pytest.approx(float(ceu(worked())))
