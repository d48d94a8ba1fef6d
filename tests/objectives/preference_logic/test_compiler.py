"""Compiled losses against worked numbers, published formulas, brute force and the order of the lattice."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from demur.objectives import cpo, dpo_loss, log_odds
from demur.objectives.preference_logic import (
    ATOMS,
    KNOWN_LOSSES,
    PreferenceStructure,
    assignments,
    compile_loss,
    enumerate_structures,
    log_ratio,
    logic,
    logic_reference,
)
from objectives.test_losses import ALTERNATE_LABELS, with_reference

WORKED = {
    "ce": (-0.847298, 1.203973),
    "ceunl": (-1.152680, 1.427116),
    "funl": (1.386294, 0.223144),
    "uncpo": (1.815290, 0.150823),
    "orpo": (0.538997, 0.459532),
    "cpo": (0.405465, 0.510826),
    "ccpo": (0.762140, 0.382992),
    "cfunl": (1.742969, 0.161268),
    "qfunl": (0.133531, 0.628609),
}
SEVEN = {
    ("T", "TB"): 0.205852,
    ("B", "N"): 0.182322,
    ("B", "TB"): 0.051293,
    ("N", "B"): -1.070441,
    ("TB", "T"): 1.458615,
    ("TB", "B"): -0.929536,
    ("TB", "TB"): 0.123614,
}
PROBABILITIES = st.floats(1e-4, 1 - 1e-4)


def logps(**probabilities: float) -> dict[str, Tensor]:
    return {name: torch.tensor([p], dtype=torch.float64).log() for name, p in probabilities.items()}


@pytest.mark.parametrize("name", WORKED)
def test_published_losses_have_their_worked_values(name: str) -> None:
    structure, weights = PreferenceStructure.of(*KNOWN_LOSSES[name]), logps(W=0.3, L=0.2)
    rho, loss = WORKED[name]
    assert log_ratio(structure, weights).item() == pytest.approx(rho, abs=1e-6)
    assert compile_loss(structure)(weights).item() == pytest.approx(loss, abs=1e-6)


@pytest.mark.parametrize("both", SEVEN)
def test_the_seven_unnamed_losses_have_their_worked_values(both) -> None:
    structure = PreferenceStructure(ATOMS, (both[0], "T", "B", both[1]))
    assert log_ratio(structure, logps(W=0.3, L=0.2)).item() == pytest.approx(SEVEN[both], abs=2e-6)


def test_dpo_has_its_worked_value_and_is_dpo() -> None:
    weights = logps(W=0.3, L=0.2, RW=0.25, RL=0.22)
    structure = PreferenceStructure.of(*KNOWN_LOSSES["dpo"])
    for beta, expected in ((1.0, 0.563935), (0.1, 0.679362)):
        loss = compile_loss(structure, beta=beta)(weights)
        assert loss.item() == pytest.approx(expected, abs=1e-6)
        torch.testing.assert_close(loss, dpo_loss(*(weights[a] for a in ("W", "L", "RW", "RL")), beta=beta))


@given(PROBABILITIES, PROBABILITIES, st.sampled_from(enumerate_structures(sensible=False)))
def test_the_count_is_the_sum_over_the_models_of_each_side(w: float, l: float, structure: PreferenceStructure) -> None:  # noqa: E741
    sides = []
    for side in (structure.good, structure.bad):
        worlds = [world for world, inside in zip(assignments(ATOMS), side, strict=True) if inside]
        sides.append(sum((w if v["W"] else 1 - w) * (l if v["L"] else 1 - l) for v in worlds))
    assert log_ratio(structure, logps(W=w, L=l)).item() == pytest.approx(math.log(sides[0] / sides[1]), abs=1e-7)


@settings(max_examples=25)
@given(PROBABILITIES, PROBABILITIES)
def test_losses_are_ordered_as_the_structures_entail_each_other(w: float, l: float) -> None:  # noqa: E741
    every = enumerate_structures()
    losses = [compile_loss(s)(logps(W=w, L=l)).item() for s in every]
    for one, high in zip(every, losses, strict=True):
        for other, low in zip(every, losses, strict=True):
            assert not one.entails(other) or high >= low - 1e-9


def test_orpos_ratio_is_the_log_of_the_odds_ratio() -> None:
    weights = logps(W=0.3, L=0.2)
    found = log_ratio(PreferenceStructure.of(*KNOWN_LOSSES["orpo"]), weights)
    torch.testing.assert_close(found, log_odds(weights["W"]) - log_odds(weights["L"]))


@pytest.mark.parametrize("link", ["logistic", "squared", "hinge", "perceptron"])
@pytest.mark.parametrize("name", WORKED)
def test_gradients_are_those_of_finite_differences(name: str, link) -> None:
    loss = compile_loss(PreferenceStructure.of(*KNOWN_LOSSES[name]), link, beta=0.7, margin=0.2)
    start = torch.tensor([[-0.3, -2.0], [-1.5, -0.1]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: loss({"W": x[0], "L": x[1]}), start)


def test_links_are_the_published_functions_of_rho() -> None:
    weights, structure = logps(W=0.3, L=0.2), PreferenceStructure.of(*KNOWN_LOSSES["cpo"])
    rho = math.log(1.5)
    expected = {
        "logistic": math.log1p(math.exp(-0.5 * rho)),
        "squared": (rho - 1) ** 2,
        "hinge": 0.5 - rho,
        "perceptron": 0.0,
    }
    for link, value in expected.items():
        assert compile_loss(structure, link, beta=0.5)(weights).item() == pytest.approx(value)


def test_a_copy_of_an_atom_weighs_what_the_atom_does() -> None:
    structure = PreferenceStructure.of("W & W2", "W & W2 | L", "false", atoms=("W", "L", "W2"))
    good = 0.3**2
    bad = 0.2 * (1 - good)
    assert log_ratio(structure, logps(W=0.3, L=0.2)).item() == pytest.approx(math.log(good / bad))


@settings(max_examples=20)
@given(st.floats(-1e4, -1e-9), st.floats(-1e4, -1e-9))
def test_extreme_probabilities_give_finite_losses_and_gradients(w: float, l: float) -> None:  # noqa: E741
    start = torch.tensor([w, l], dtype=torch.float32, requires_grad=True)
    compile_loss(PreferenceStructure.of("L -> W"))({"W": start[:1], "L": start[1:]}).backward()
    assert start.grad is not None and bool(start.grad.isfinite().all())


def test_the_objectives_are_the_compiled_losses_of_scored_batches() -> None:
    chosen, rejected = with_reference(ALTERNATE_LABELS), with_reference()
    cpo_formulas = dict(zip(("core", "condition", "additive"), KNOWN_LOSSES["cpo"], strict=True))
    torch.testing.assert_close(
        logic(chosen, rejected, **cpo_formulas, beta=0.3, per_token=False), cpo(chosen, rejected, 0.3, nll_weight=0)
    )
    logs = [s.logps for s in (chosen, rejected, chosen.reference, rejected.reference)]
    torch.testing.assert_close(logic_reference(chosen, rejected, beta=0.3, per_token=False), dpo_loss(*logs, beta=0.3))


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: log_ratio(PreferenceStructure.of("true"), logps(W=0.3, L=0.2)), "no row of the truth table is bad"),
        (lambda: log_ratio(PreferenceStructure.of("RW -> W"), logps(W=0.3, L=0.2)), "atom RW has no probability"),
        (lambda: compile_loss(PreferenceStructure.of("W"), "cubic"), "link must be logistic"),  # type: ignore[arg-type]
        (lambda: compile_loss(PreferenceStructure.of("W"), beta=0.0), "beta must be a positive"),
    ],
)
def test_what_cannot_be_compiled_is_refused(make, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        make()
