from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from demur.protect import RobustCounterfactual, fit_linear
from demur.studies import recourse_models
from demur.studies import right_to_explanation_vs_forgotten as recourse
from demur.studies.registry import NotMeasured
from protect.people import people, refused

METHODS = ("plain", "δ=0.1", "auto", "ROAR", "half", "turned sign", "without 1/n")


def _arms(arms: tuple[str, ...], prefix: str = "") -> dict[str, float]:
    values = {"cost": 0.12, "random": 1.0, "worst": 1.0, "lowest": 0.01, "counted": 1.0, "valid": 1.0}
    return {f"{prefix}{arm} {what}": value for arm in arms for what, value in values.items()}


def _held(claims: Callable[[pd.DataFrame], Any], row: dict[str, float], change: dict[str, float]) -> list[bool]:
    table = pd.DataFrame.from_dict({1: row, 2: {**row, **change}}, orient="index")
    return [claim.holds for claim in claims(table)]


COMPAS = _arms(METHODS) | {f"{arm} random {share}": 1.0 for arm in ("plain", "auto") for share in recourse.SHARES}
COMPAS |= {"plain random": 0.5, "plain cost": 0.07, "turned sign random": 0.01, "without 1/n cost": 1.0}
COMPAS |= {"random miss": 0.05, "random mean miss": 0.01, "worst miss": 0.2, "worst mean miss": 0.1}
COMPAS |= {"auto looking again": 1.0}
PAIRS = {f"{n} {what}": v for n in (30, 60) for what, v in (("hits", 25), ("rank", 0.001), ("drop off by", 0.2))}
TABLES = {
    k: v for name in recourse.TABLES for k, v in _arms(("plain", "δ=0.1", "auto", "ROAR"), f"{name}: ").items()
} | {f"{name}: auto looking again": 1.0 for name in recourse.TABLES}
NETWORKS = _arms(("plain", "δ=0", "auto")) | {"plain cost": 0.07}
TREES = {k: v for name in ("tree", "forest") for k, v in _arms(("plain", "votes", "auto"), f"{name} ").items()}
TREES |= {f"{name} {what}": 0.0 for name in ("tree", "forest") for what in ("broken bounds", "slack")}


@pytest.mark.parametrize(
    ("claims", "row", "change"),
    [
        (recourse.compas_claims, COMPAS, {"δ=0.1 random": 0.98}),
        (recourse.compas_claims, COMPAS, {"plain random": 0.8}),
        (recourse.compas_claims, COMPAS, {"auto random 0.02": 0.9}),
        (recourse.compas_claims, COMPAS, {"auto worst": 0.975}),
        (recourse.compas_claims, COMPAS, {"δ=0.1 cost": 0.17}),
        (recourse.compas_claims, COMPAS, {"auto cost": 0.17}),
        (recourse.compas_claims, COMPAS, {"random miss": 0.11}),
        (recourse.compas_claims, COMPAS, {"turned sign random": 0.6}),
        (recourse.compas_claims, COMPAS, {"without 1/n cost": 0.5}),
        (recourse.pairs_claims, PAIRS, {"60 hits": 19.0}),
        (recourse.pairs_claims, PAIRS, {"60 rank": 0.03}),
        (recourse.tables_claims, TABLES, {"Adult: auto random": 0.98}),
        (recourse.tables_claims, TABLES, {"German credit: auto worst": 0.975}),
        (recourse.tables_claims, TABLES, {"Adult: auto cost": 0.2}),
        (recourse_models.networks_claims, NETWORKS, {"auto worst": 0.8}),
        (recourse_models.networks_claims, NETWORKS, {"auto random": 0.8}),
        (recourse_models.networks_claims, NETWORKS, {"auto cost": 0.3}),
        (recourse_models.trees_claims, TREES, {"forest broken bounds": 1.0}),
        (recourse_models.trees_claims, TREES, {"tree votes counted": 0.9}),
        (recourse_models.trees_claims, TREES, {"forest votes counted": 0.9}),
        (recourse_models.trees_claims, TREES, {"forest auto random": 0.9}),
        (recourse_models.trees_claims, TREES, {"tree auto random": 0.9}),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) and len(value) == 1 else "",
)
def test_every_claim_can_fail_on_one_seed(
    claims: Callable[[pd.DataFrame], Any], row: dict[str, float], change: dict[str, float]
) -> None:
    assert all(_held(claims, row, {})) and _held(claims, row, change).count(False) == 1


def test_the_controls_make_the_slips_they_are_named_after() -> None:
    X, y = people()
    fit = fit_linear(X, y, 1e-2)
    x0 = refused(fit, X)[0]
    right, turned, without = (
        kind(fit, X, y, k=3) for kind in (RobustCounterfactual, recourse.TurnedSign, recourse.WithoutN)
    )
    now, drop = fit.scores(x0[None])[0], right.worst(x0)[0] - fit.scores(x0[None])[0]
    assert turned.worst(x0)[0] == pytest.approx(now - drop)
    assert without.worst(x0)[0] == pytest.approx(now + recourse.ROWS * drop)
    for control in (turned, without):
        slope = control._worst_and_slope(x0)[1]
        for j in range(4):
            step = 1e-6 * np.eye(4)[j]
            measured = (control.worst(x0 + step)[0] - control.worst(x0 - step)[0]) / 2e-6
            assert measured == pytest.approx(slope[j], rel=1e-4, abs=1e-4)


def test_roar_is_accepted_by_every_weight_vector_in_its_ball() -> None:
    X, y = people()
    fit = fit_linear(X, y, 1e-2)
    judge, rng = RobustCounterfactual(fit, X, y, k=1), np.random.default_rng(0)
    x = recourse.roar(fit, judge, refused(fit, X)[0]).x
    moved = fit.weights + rng.uniform(-recourse.BALL, recourse.BALL, (500, 4))
    assert (moved @ x + fit.bias - recourse.BALL >= -1e-9).all()


def test_an_adversary_that_looks_again_finds_rows_at_least_as_harmful() -> None:
    X, y = people()
    fit = fit_linear(X, y, 1e-2)
    judge = RobustCounterfactual(fit, X, y, k=8)
    found = judge.explain(refused(fit, X)[0])
    at_once = judge.refit(found.worst_points)(found.x[None])[0]
    assert recourse.harder(judge, found, 8)[0] <= at_once + 1e-3


def test_it_measures_what_its_claims_read(shared_data: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEMUR_SHARED_DATA", str(shared_data("compas_recourse").parent))
    for name, value in {"ROWS": 200, "QUERIES": 3, "REPEATS": 2, "DELETIONS": 4}.items():
        monkeypatch.setattr(recourse, name, value)
    for name, value in {
        "ROWS": 200,
        "QUERIES": 2,
        "STEPS": 15,
        "DRAWS": 1,
        "TREES": 3,
        "REPEATS": 4,
        "LEAF": 4,
    }.items():
        monkeypatch.setattr(recourse_models, name, value)
    monkeypatch.setitem(recourse.TABLES, "Adult", recourse.breast_cancer)
    monkeypatch.setitem(recourse.TABLES, "German credit", recourse.breast_cancer)
    for part in (recourse.compas, recourse.tables, recourse_models.networks, recourse_models.trees):
        assert part.check({1: part(1)})


def test_without_the_table_it_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEMUR_SHARED_DATA", raising=False)
    with pytest.raises(NotMeasured, match="compas_recourse"):
        recourse.compas(1)
