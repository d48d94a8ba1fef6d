from __future__ import annotations

import numpy as np
import pytest

from demur.errors import UsageError
from demur.protect import Refit, RobustCounterfactual, fit_linear, validity
from protect.people import compas, people, refused


def test_robust_explanations_survive_random_and_worst_deletions_and_plain_ones_do_not() -> None:
    X, y, fit, queries = compas(1000, 1, 1e-3)
    robust = RobustCounterfactual(fit, X, y, k=10, delta=0.1)
    plain = RobustCounterfactual(fit, X, y, k=0).explain_all(queries)
    found = robust.explain_all(queries)
    assert validity(found, robust.refit, fraction=0.01, repeats=30).share >= 0.99
    assert validity(plain, robust.refit, fraction=0.01, repeats=30).share <= 0.75
    assert validity(found, robust.refit, adversarial=True).share == 1.0
    assert np.mean([c.cost for c in found]) - np.mean([c.cost for c in plain]) <= 0.08


def test_a_share_and_its_number_of_rows_draw_the_same_models() -> None:
    X, y = people()
    fit = fit_linear(X, y, 1e-2)
    explain = RobustCounterfactual(fit, X, y, k=2)
    found = explain.explain_all(refused(fit, X, 3))
    by_share, by_number = (validity(found, explain.refit, repeats=4, **of) for of in ({"fraction": 0.1}, {"k": 8}))
    assert (by_share.scores == by_number.scores).all() and by_share.scores.shape == (4, 3)
    assert (validity(found, explain.refit, k=8, repeats=4, seed=1).scores != by_share.scores).any()
    assert by_share.each.mean() == pytest.approx(by_share.share) and by_share.lowest == by_share.scores.min()


def test_only_the_rows_asked_for_are_deleted() -> None:
    X, y = people()
    fit = fit_linear(X, y, 1e-2)
    found = RobustCounterfactual(fit, X, y, k=3).explain_all(refused(fit, X, 2))
    asked: list[int] = []

    def train(rows):  # type: ignore[no-untyped-def]
        asked.append(len(rows))
        return fit.scores

    refit, told = Refit(len(X), train), []
    validity(found, refit, adversarial=True, k=1)
    validity(found, refit, k=5, repeats=2, progress=lambda done, of: told.append((done, of)))
    assert asked == [1, 1, 5, 5] and told == [(1, 2), (2, 2)]


def test_what_cannot_be_checked_is_refused() -> None:
    X, y = people()
    fit = fit_linear(X, y, 1e-2)
    explain = RobustCounterfactual(fit, X, y, k=2)
    found = explain.explain_all(refused(fit, X, 1))
    with pytest.raises(UsageError, match="no counterfactual"):
        validity([], explain.refit, k=1)
    with pytest.raises(UsageError, match="either fraction"):
        validity(found, explain.refit)
    with pytest.raises(UsageError, match="delete all"):
        validity(found, explain.refit, k=80)
