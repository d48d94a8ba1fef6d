"""The family of losses on pairs, against TRL where it has them, and against worked numbers and limits elsewhere."""

from __future__ import annotations

import math
import os
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from demur.objectives import cpo, dpo, dpop, ipo, log_odds, orpo, rdpo, redi, redi_loss, simpo, slic

LENGTHS = torch.tensor([3, 5]), torch.tensor([4, 2])


def pair() -> tuple[SimpleNamespace, SimpleNamespace]:
    """A chosen and a rejected batch with a reference, as an objective sees them."""

    def scored(logps: list[float], reference: list[float], lengths: Tensor) -> SimpleNamespace:
        summed = torch.tensor(logps, dtype=torch.float64, requires_grad=True)
        stored = SimpleNamespace(logps=torch.tensor(reference, dtype=torch.float64))
        return SimpleNamespace(
            logps=summed,
            lengths=lengths,
            mean_logps=summed / lengths,
            nll=-summed.sum() / lengths.sum(),
            reference=stored,
        )

    return (
        scored([-4.0, -7.5], [-3.0, -8.0], LENGTHS[0]),
        scored([-6.0, -2.5], [-5.5, -2.0], LENGTHS[1]),
    )


def _trl(name: str):
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    module = pytest.importorskip(f"trl.experimental.{name}.{name}_trainer")
    return getattr(module, f"{name.upper()}Trainer")


@pytest.mark.parametrize("kind", ["sigmoid", "simpo", "hinge"])
def test_reference_free_losses_equal_trls(kind: str) -> None:
    trainer = _trl("cpo")
    chosen, rejected = pair()
    own = SimpleNamespace(
        alpha=0.0,
        beta=0.7,
        label_smoothing=0.0,
        loss_type=kind,
        simpo_gamma=0.4,
        accelerator=SimpleNamespace(device="cpu"),
    )
    per_token = kind == "simpo"
    logs = [s.mean_logps if per_token else s.logps for s in (chosen, rejected)]
    expected = trainer.cpo_loss(own, *logs)[0].mean()
    ours = {
        "sigmoid": lambda: cpo(chosen, rejected, beta=0.7, nll_weight=0.0),
        "simpo": lambda: simpo(chosen, rejected, beta=0.7, gamma=0.4),
        "hinge": lambda: 0.7 * slic(chosen, rejected, margin=1 / 0.7),
    }[kind]()
    torch.testing.assert_close(ours, expected)


def test_orpo_equals_trls() -> None:
    trainer = _trl("orpo")
    chosen, rejected = pair()
    own = SimpleNamespace(beta=0.2, accelerator=SimpleNamespace(device="cpu"))
    weighted = trainer.odds_ratio_loss(own, chosen.mean_logps, rejected.mean_logps)[0]
    expected = chosen.nll - weighted.mean().double()
    torch.testing.assert_close(orpo(chosen, rejected, weight=0.2), expected, atol=1e-6, rtol=1e-6)


def test_ipo_pulls_the_margin_to_its_target() -> None:
    chosen, rejected = pair()
    margins = [(-1.0 / 3) - (-0.5 / 4), 0.5 / 5 - (-0.5 / 2)]
    expected = sum((m - 5) ** 2 for m in margins) / 2
    assert ipo(chosen, rejected, beta=0.1).item() == pytest.approx(expected)
    summed = [(-1.0) - (-0.5), 0.5 - (-0.5)]
    expected = sum((m - 5) ** 2 for m in summed) / 2
    assert ipo(chosen, rejected, beta=0.1, per_token=False).item() == pytest.approx(expected)


def test_rdpo_and_dpop_are_dpo_where_they_charge_nothing() -> None:
    plain = dpo(*pair(), beta=0.3)
    torch.testing.assert_close(rdpo(*pair(), beta=0.3, alpha=0.0), plain)
    torch.testing.assert_close(dpop(*pair(), beta=0.3, penalty=0.0), plain)


def test_rdpo_asks_less_of_a_chosen_response_that_is_longer() -> None:
    chosen, rejected = pair()
    margins = torch.tensor([-0.5, 1.0]) * 0.3 + 0.1 * torch.tensor([-1.0, 3.0])
    assert rdpo(chosen, rejected, beta=0.3, alpha=0.1).item() == pytest.approx(float(-F.logsigmoid(margins).mean()))


def test_dpop_charges_only_where_the_chosen_response_fell() -> None:
    chosen, rejected = pair()
    margins = torch.tensor([-0.5 - 50.0 * 1.0, 1.0]) * 0.3  # the first fell by 1 nat, the second rose
    assert dpop(chosen, rejected).item() == pytest.approx(float(-F.logsigmoid(margins).mean()))


def test_cpo_and_slic_add_the_likelihood_of_the_chosen_response() -> None:
    for loss in (cpo, slic):
        chosen, rejected = pair()
        bare = loss(chosen, rejected, nll_weight=0.0)
        torch.testing.assert_close(loss(chosen, rejected, nll_weight=0.5), bare + 0.5 * chosen.nll)


@pytest.mark.parametrize(("alpha", "expected"), [(0.0, 0.266667), (0.8, -0.333333), (1.0, -0.483333)])
def test_redi_has_its_worked_values(alpha: float, expected: float) -> None:
    chosen, rejected = torch.tensor([(-0.2 - 0.5 - 0.1) / 3]), torch.tensor([(-0.3 - 1.2) / 2])
    assert float(redi_loss(chosen, rejected, alpha)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("beta", "expected"), [(1.0, -0.425490), (0.1, -0.477494), (0.001, -0.483275)])
def test_simpo_tends_to_symmetric_redi_as_beta_goes_to_zero(beta: float, expected: float) -> None:
    chosen, rejected = pair()
    chosen.mean_logps, rejected.mean_logps = torch.tensor([-0.266667]), torch.tensor([-0.75])
    scaled = (simpo(chosen, rejected, beta=beta, gamma=0.0) - math.log(2)) * 2 / beta
    assert scaled.item() == pytest.approx(expected, abs=2e-5 / beta**0.5)


def test_redi_without_its_rejected_side_is_fine_tuning_on_the_chosen_one() -> None:
    chosen, rejected = pair()
    (slope,) = torch.autograd.grad(redi(chosen, rejected, alpha=0.0), chosen.logps)
    torch.testing.assert_close(slope, -1.0 / (2 * LENGTHS[0].double()))


def test_one_step_widens_the_margin_under_every_loss() -> None:
    for loss in (cpo, dpop, ipo, orpo, rdpo, redi, simpo, slic):
        chosen, rejected = pair()
        slopes = torch.autograd.grad(loss(chosen, rejected).sum(), [chosen.logps, rejected.logps])
        assert bool((slopes[0] <= 0).all()) and bool((slopes[1] >= 0).all()), loss.__name__
        assert float(slopes[1].sum() - slopes[0].sum()) > 0


def test_log_odds_stay_finite_at_both_ends() -> None:
    ends = torch.tensor([0.0, -1e-12, -1e4], requires_grad=True)
    odds = log_odds(ends)
    odds.sum().backward()
    assert bool(odds.isfinite().all()) and bool(ends.grad.isfinite().all())
    assert float(log_odds(torch.tensor(0.2).log())) == pytest.approx(math.log(0.25), abs=1e-6)


@pytest.mark.parametrize(
    ("loss", "options", "problem"),
    [
        (cpo, {"beta": 0.0}, "beta must be a positive"),
        (cpo, {"nll_weight": -1.0}, "nll_weight must be at least 0"),
        (ipo, {"beta": math.inf}, "beta must be a positive"),
        (orpo, {"weight": -0.1}, "weight must be at least 0"),
        (rdpo, {"alpha": math.nan}, "alpha must be at least 0"),
        (dpop, {"penalty": -1.0}, "penalty must be at least 0"),
        (redi, {"alpha": 1.1}, "between 0 and 1"),
    ],
)
def test_options_out_of_range_are_refused(loss, options: dict[str, float], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        loss(*pair(), **options)
