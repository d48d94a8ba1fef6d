from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from demur.studies import NotMeasured, npo
from demur.studies.npo import KEEP, Points, World, descend, divergence, fit_head, losses, make_world


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads only cost time on matrices this small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(1.0, seed=1)


@pytest.fixture(scope="module")
def heads(world: World) -> tuple[torch.Tensor, torch.Tensor]:
    """The head before unlearning, and the one that never saw the forget cluster."""
    return fit_head(world.keep.joined(world.forget)), fit_head(world.keep)


def test_a_seed_gives_one_world():
    first, again, other = make_world(1.0, 3), make_world(1.0, 3), make_world(1.0, 4)
    assert torch.equal(first.keep.features, again.keep.features) and torch.equal(first.idk.signs, again.idk.signs)
    assert not torch.equal(first.keep.features, other.keep.features)


def test_the_clusters_have_the_class_shares_of_the_setting_and_swap_their_classes():
    expected = torch.sigmoid(1 + torch.randn(200_000, generator=torch.Generator().manual_seed(0))).mean().item()
    worlds = [make_world(1.0, seed) for seed in range(6)]
    for points, sign in (("fresh_keep", 1), ("fresh_forget", -1)):
        share = np.mean([(getattr(w, points).signs == sign).double().mean().item() for w in worlds])
        assert share == pytest.approx(expected, abs=0.03)


def test_the_fitted_head_is_the_one_that_scikit_learn_finds(world: World, heads: tuple[torch.Tensor, torch.Tensor]):
    model = LogisticRegression(C=1 / (1e-4 * KEEP), fit_intercept=False, solver="newton-cholesky", tol=1e-12)
    model.fit(world.keep.features.numpy(), world.keep.signs.numpy())
    np.testing.assert_allclose(heads[1].numpy(), model.coef_[0], rtol=1e-6)


def test_divergence_is_the_kl_of_two_classes(world: World, heads: tuple[torch.Tensor, torch.Tensor]):
    p, q = (torch.sigmoid(world.fresh_keep.features @ head).numpy() for head in heads)
    by_hand = np.mean(p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q)))
    assert divergence(*heads, world.fresh_keep) == pytest.approx(by_hand, rel=1e-9)
    assert divergence(heads[0], heads[0], world.fresh_keep) == 0.0


def _weights(name: str, logps: np.ndarray, start: np.ndarray, beta: float) -> np.ndarray:
    """What the paper says that a method multiplies each forget point's ascent gradient with."""
    return np.ones_like(logps) if name == "GA" else 2 / (1 + np.exp(-beta * (logps - start)))


@pytest.mark.parametrize(("name", "rate", "beta"), [("GA", 5e-2, 1.0), ("NPO", 5e-2, 1.0), ("NPO+RT", 5e-2, 10.0)])
def test_descent_follows_the_paper_s_gradient(
    world: World, heads: tuple[torch.Tensor, torch.Tensor], name: str, rate: float, beta: float
):
    def ascent(points: Points, head: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        features, signs = points.features.numpy(), points.signs.numpy()
        score = signs * (features @ head)
        return -np.log1p(np.exp(-score)), (signs / (1 + np.exp(score)))[:, None] * features

    head = start = heads[0].numpy()
    before, _ = ascent(world.forget, start)
    for _ in range(100):
        logps, gradients = ascent(world.forget, head)
        gradient = (_weights(name, logps, before, beta)[:, None] * gradients).mean(0)
        if name == "NPO+RT":
            gradient = gradient - ascent(world.keep, head)[1].mean(0)
        head = head - rate * gradient
    path = descend(losses(world, heads[0])[name](beta), heads[0], rate, steps=100, every=50)
    assert len(path) == 3 and torch.equal(path[0], heads[0])
    np.testing.assert_allclose(path[-1].numpy(), head, rtol=1e-9)


def test_one_draw_passes_the_gates_of_the_full_study(world: World, heads: tuple[torch.Tensor, torch.Tensor]):
    start, gold = heads
    final = {}
    for name in ("GA", "NPO", "NPO+RT"):
        loss, rate, beta = npo.SETTINGS["apart"][1][name]
        final[name] = descend(losses(world, start)[loss](beta), start, rate)[-1]
    retain = {name: divergence(gold, head, world.fresh_keep) for name, head in final.items()}
    assert retain["GA"] > 0.9 and retain["NPO"] < 0.3 and retain["NPO"] <= retain["GA"] / 4 and retain["NPO+RT"] < 0.04


def test_the_wrong_sign_moves_away_from_the_retrained_head(world: World, heads: tuple[torch.Tensor, torch.Tensor]):
    start, gold = heads
    right = losses(world, start)["NPO"](1.0)
    before = divergence(gold, start, world.fresh_forget)
    assert divergence(gold, descend(right, start, 5e-3, steps=200)[-1], world.fresh_forget) < before
    assert divergence(gold, descend(lambda head: -right(head), start, 5e-3, steps=200)[-1], world.fresh_forget) > before


def _synthetic(change: dict[str, float]) -> dict[str, bool]:
    values = {"apart start forget": 1.5, "mixed start forget": 0.06}
    retain = {
        "GA": 1.3,
        "GDiff": 0.3,
        "IDK+RT": 0.03,
        "NPO": 0.15,
        "NPO+RT": 0.02,
        "DPO+RT": 0.05,
        "NPO as β → 0": 1.29,
    }
    for name, value in retain.items():
        values[f"apart {name} retain"] = value
        values[f"apart {name} forget"] = 0.7 if name == "IDK+RT" else 0.002
        values[f"apart {name} pace"] = 4.0 if name == "GA" else 1.1
    for name, value in {"GA": 0.04, "NPO": 0.025, "NPO+RT": 0.015}.items():
        values[f"mixed {name} best forget"] = value
    table = pd.DataFrame.from_dict({1: values, 2: {**values, **change}}, orient="index")
    return {claim.text: claim.holds for claim in npo.synthetic_claims(table)}


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ({}, 0),
        ({"apart GA retain": 0.8}, 2),  # not ruined, and no longer what NPO with β → 0 comes to
        ({"apart NPO retain": 0.31}, 1),
        ({"apart NPO retain": 0.33}, 2),
        ({"apart NPO+RT retain": 0.04}, 1),
        ({"apart NPO forget": 1.6}, 1),
        ({"apart IDK+RT forget": 0.01}, 1),
        ({"apart GA pace": 1.1}, 1),
        ({"apart NPO pace": 2.0}, 1),
        ({"mixed NPO best forget": 0.036}, 1),
        ({"mixed NPO+RT best forget": 0.02}, 1),
    ],
    ids=str,
)
def test_every_synthetic_claim_can_fail_on_one_seed(change: dict[str, float], broken: int):
    assert sum(not holds for holds in _synthetic(change).values()) == broken


def test_the_measurements_are_those_that_the_claims_read(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(npo.descend, "__defaults__", (50, 25))
    measured = npo.synthetic(1)
    assert len(measured) == 42 and all(math.isfinite(value) for value in measured.values())
    assert npo.synthetic.check({1: measured, 2: measured})


def test_without_the_data_the_language_model_part_is_not_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("DEMUR_SHARED_DATA", str(tmp_path))
    with pytest.raises(NotMeasured, match="DEMUR_SHARED_DATA"):
        npo.tofu(1)


def _tofu(change: dict[str, float]) -> dict[str, bool]:
    values = {"before": (0.96, 0.96, 1e-6), "gold": (0.001, 0.94, 1.0), "GA": (1e-9, 1e-9, 0.5)}
    values |= {"GradDiff": (1e-9, 0.7, 0.1), "NPO": (1e-3, 1e-3, 0.6), "NPO+RT": (0.04, 0.96, 0.05)}
    values |= {"NPO+KL": (0.04, 0.95, 0.05), "SimNPO": (0.2, 0.97, 1e-5), "IdkDPO": (0.14, 0.96, 1e-5)}
    row = {
        f"{name} {what}": number
        for name, numbers in values.items()
        for what, number in zip(("forget", "retain", "forget quality"), numbers, strict=True)
    }
    table = pd.DataFrame.from_dict({1: row, 2: {**row, **change}}, orient="index")
    return {claim.text: claim.holds for claim in npo.tofu_claims(table)}


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ({}, 0),
        ({"before forget": 0.5}, 1),
        ({"GA retain": 0.02}, 1),
        ({"GradDiff forget": 2e-4}, 1),
        ({"NPO+RT forget": 0.21}, 1),
        ({"NPO+RT forget": 9e-5}, 1),
        ({"NPO+RT retain": 0.84}, 1),
        ({"NPO forget quality": 0.04}, 1),
    ],
    ids=str,
)
def test_every_claim_about_language_models_can_fail_on_one_seed(change: dict[str, float], broken: int):
    assert sum(not holds for holds in _tofu(change).values()) == broken


def test_the_language_model_part_measures_what_its_claims_read(quick_authors: None, monkeypatch: pytest.MonkeyPatch):
    measured = npo.tofu(1)
    assert measured["gold forget quality"] == 1.0
    assert all(0 <= value <= 1 for value in measured.values())
    assert npo.tofu.check({1: measured})
