"""DCO against worked numbers, cross entropy, exact arithmetic, and the loss it is derived from."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from demur import UsageError
from demur.data.batch import IGNORE, Batch
from demur.models.head import Head
from demur.models.scored import Scored
from demur.objectives import dco, dco_approx_loss, dco_factor, dco_loss, dco_step, dco_step_loss
from demur.training import Objective

_ = IGNORE
LABELS = [[_, _, 0, 2, 4, 2], [_, _, _, 1, 3, _]]


def scored(labels: list[list[int]] = LABELS) -> Scored:
    """A batch whose logits are 2 sin(1.7 t + 0.9 v + 1.3 b), in float64."""
    b, t, v = torch.meshgrid(torch.arange(2), torch.arange(6), torch.arange(5), indexing="ij")
    tokens = torch.tensor(labels).clamp(min=0)
    logits = (2 * torch.sin(1.7 * t.double() + 0.9 * v + 1.3 * b)).requires_grad_()
    return Scored(
        Batch(tokens, torch.ones_like(tokens), torch.tensor(labels), ["0", "1"]),
        logits,
        Head(torch.eye(5, dtype=torch.float64)),
    )


def naive(s: Tensor, n: int) -> Tensor:
    return -torch.log(1 - (1 - s.exp()) ** n)


@pytest.mark.parametrize(
    ("n", "p", "loss", "factor"),
    [
        (1, 0.3, 1.203973, 1),
        (4, 0.3, 0.274568, 0.541650),
        (16, 0.3, 0.003329, 0.022864),
        (16, 0.05, 0.580045, 0.661994),
        (256, 0.004, 0.443819, 0.574354),
        (16, 1e-6, 11.042929, 0.999992),
    ],
)
def test_worked_numbers(n: int, p: float, loss: float, factor: float) -> None:
    s = torch.tensor([p], dtype=torch.float64).log()
    assert dco_loss(s, n).item() == pytest.approx(loss, abs=1e-6)
    assert dco_factor(n, s.exp()).item() == pytest.approx(factor, abs=1e-6)


def test_every_gradient_component_is_the_factor_times_cross_entropys() -> None:
    logits = torch.tensor([0.2, 1.0, -0.5, 0.3], requires_grad=True)
    s = logits.log_softmax(0)[1:2]
    assert s.exp().item() == pytest.approx(0.461033, abs=1e-6)
    loss = dco_loss(s, 8)
    assert loss.item() == pytest.approx(0.007146, abs=1e-6)
    ours, theirs = (torch.autograd.grad(x, logits, retain_graph=True)[0] for x in (loss, -s.sum()))
    assert torch.allclose(ours / theirs, torch.full((4,), 0.049075), atol=1e-6)


def test_one_draw_is_cross_entropy_bit_for_bit() -> None:
    logits, target = torch.randn(7, 11, generator=torch.Generator().manual_seed(0)), torch.arange(7)
    a, b = (logits.clone().requires_grad_() for _ in range(2))
    plain = F.cross_entropy(a, target, reduction="sum")
    ours = dco_loss(-F.cross_entropy(b, target, reduction="sum")[None], 1, "sum")
    plain.backward()
    ours.backward()
    assert torch.equal(plain, ours) and torch.equal(a.grad, b.grad)


@given(st.floats(-20, -1e-4), st.integers(2, 4096))
def test_value_is_exact_arithmetics(log_p: float, n: int) -> None:
    p = Fraction(math.exp(log_p))
    # 1 - (1-p)^n as a sum of powers would be slow; rationals lose nothing.
    exact = 1 - (1 - p.limit_denominator(10**12)) ** min(n, 64)
    s = torch.tensor([float(p.limit_denominator(10**12))], dtype=torch.float64).log()
    found = dco_loss(s, min(n, 64)).item()
    assert math.exp(-found) == pytest.approx(float(exact), rel=1e-9, abs=1e-12)


@given(st.floats(-6, -0.01), st.integers(2, 64))
def test_gradient_is_the_naive_losss(log_p: float, n: int) -> None:
    grads = []
    for loss in (lambda s: dco_loss(s, n, "sum"), lambda s: naive(s, n).sum()):
        s = torch.tensor([log_p], dtype=torch.float64, requires_grad=True)
        grads.append(torch.autograd.grad(loss(s), s)[0].item())
    assert grads[0] == pytest.approx(grads[1], rel=1e-6, abs=1e-9)


def test_stays_finite_where_the_naive_loss_does_not() -> None:
    s = torch.tensor([-2000.0, -80.0, -1e-9, 0.0], requires_grad=True)
    assert not bool(naive(s, 64).isfinite().all())
    losses = dco_loss(s, 64, "none")
    losses.sum().backward()
    assert losses[:2].tolist() == pytest.approx([2000 - math.log(64), 80 - math.log(64)])
    assert losses[2:].tolist() == [0, 0]
    assert s.grad.tolist() == pytest.approx([-1, -1, 0, 0], abs=1e-6)


def test_no_step_where_the_series_takes_over() -> None:
    s = torch.linspace(-30.001, -29.999, 9, dtype=torch.float64)
    for values in (dco_loss(s, 4096, "none") + s, dco_factor(4096, s.exp())):
        assert (values.max() - values.min()).item() < 1e-9


@given(st.integers(2, 1000), st.floats(1e-9, 0.99))
def test_factor_lies_between_0_and_1_and_falls_with_p(n: int, p: float) -> None:
    low, high = dco_factor(n, torch.tensor([p, p * 1.01], dtype=torch.float64)).tolist()
    assert 0 <= high <= low <= 1


def test_factor_at_the_ends() -> None:
    assert dco_factor(16, torch.tensor([0.0, 1.0])).tolist() == pytest.approx([1, 0], abs=1e-50)


def test_steps_sum_within_a_row_and_average_over_rows() -> None:
    p = torch.tensor([[0.5, 0.9, 0.2]])
    assert dco_step_loss(p.log(), torch.arange(3)[None], 4).item() == pytest.approx(0.591594, abs=1e-6)
    assert dco_loss(p.log().sum(1), 64).item() == pytest.approx(0.002394, abs=1e-6)
    twice = dco_step_loss(p.log().repeat(2, 1), torch.arange(3).repeat(2, 1), 4)
    assert twice.item() == pytest.approx(0.591594, abs=1e-6)
    one = dco_step_loss(p.log(), torch.tensor([[0, 0, 0]]), 64)
    assert one.item() == pytest.approx(0.002394, abs=1e-6)
    assert dco_step_loss(p.log(), torch.tensor([[-1, -1, 0]]), 4).item() == pytest.approx(
        -math.log(1 - 0.8**4), rel=1e-5
    )


def test_objective_reads_whole_answers() -> None:
    rows = scored()
    assert torch.equal(dco(rows, 1.0), -rows.logps.mean())
    assert dco(rows, 16.0).item() == pytest.approx(naive(rows.logps, 16).mean().item(), rel=1e-9)


def test_left_out_rows_do_not_shrink_the_mean() -> None:
    rows = scored()
    losses, factors = naive(rows.logps, 256), dco_factor(256, rows.logps.exp())
    between = factors.mean().item()
    kept = losses[factors >= between]
    assert 0 < len(kept) < 2
    assert dco(rows, 256.0, between).item() == pytest.approx(kept.mean().item(), rel=1e-6)
    assert dco(rows, 256.0, 1.0).item() == 0.0


def test_step_objective_splits_at_tokens_or_after_a_separator() -> None:
    rows = scored()
    logps = rows.token_logps
    assert dco_step(rows, 1.0).item() == pytest.approx(-rows.logps.mean().item(), rel=1e-12)
    tokens = sum(naive(logps[b][rows.mask[b]], 4).sum() for b in range(2)) / 2
    assert dco_step(rows, 4.0).item() == pytest.approx(tokens.item(), rel=1e-9)
    # Row 0 reads 0 2 | 4 2, row 1 has no separator.
    parts = [logps[0, 2:4].sum(), logps[0, 4:6].sum(), logps[1].sum()]
    assert dco_step(rows, 4.0, separator=2).item() == pytest.approx(naive(torch.stack(parts), 4).sum().item() / 2)


def test_estimates_weigh_cross_entropy_and_get_no_gradient() -> None:
    s = torch.tensor([-3.0, -1.0], requires_grad=True)
    estimates = torch.tensor([0.0, 0.3], requires_grad=True)
    loss = dco_approx_loss(s, estimates, 4)
    loss.backward()
    assert loss.item() == pytest.approx((3 + 0.541650) / 2, abs=1e-5)
    assert s.grad.tolist() == pytest.approx([-0.5, -0.541650 / 2], abs=1e-6) and estimates.grad is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dco_loss(torch.tensor([-1.0]), 0), "n must be"),
        (lambda: dco_loss(torch.tensor([0.5]), 4), "is positive"),
        (lambda: dco_loss(torch.tensor([-1.0]), 4, "sums"), "unknown reduction"),
        (lambda: dco_factor(4, torch.tensor([1.5])), "outside 0 to 1"),
        (lambda: dco_step_loss(torch.tensor([-1.0]), torch.tensor([0]), 4), "batch, length"),
        (lambda: dco_step_loss(torch.zeros(1, 2), torch.zeros(1, 3).long(), 4), "shapes differ"),
        (lambda: dco_approx_loss(torch.zeros(2), torch.zeros(3), 4), "shapes differ"),
        (lambda: dco(scored(), 4.0, 2.0), "min_factor"),
    ],
)
def test_bad_input_is_refused(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]


def test_options_are_read_from_a_command_line() -> None:
    assert Objective.make("dco", {"n": 64}).options == {"n": 64.0}
    with pytest.raises(UsageError, match="must be a number"):
        Objective.make("dco", {"n": "many"})
