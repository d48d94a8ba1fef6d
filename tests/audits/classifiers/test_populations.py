from __future__ import annotations

import warnings

import numpy as np
import pytest

from audits.classifiers.conftest import small_net
from demur.audits.classifiers import (
    Populations,
    UnlearnSplits,
    evaluate_populations,
    kl_of_margins,
    train_populations,
    u_lira,
)
from demur.editing import ensembles
from demur.errors import UsageError


def drawn(seed: int, shift: float = 0.0) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    return {
        name: draw.normal(shift if name == "forget" else 0, 1, (40, rows))
        for name, rows in (("forget", 30), ("retain", 50), ("test", 50))
    }


def test_what_is_left_in_the_rows_is_told_beside_its_floor() -> None:
    found = {m.metric: m for m in evaluate_populations(Populations(drawn(0, 6.0), drawn(1), drawn(2)))}
    assert found["u_lira"].value > 0.95 and found["u_lira"].reference == pytest.approx(0.5, abs=0.08)
    assert found["u_lira_tpr"].value > 0.9 and found["u_lira_tpr"].reference < 0.1
    assert found["klom_forget"].value > 5 * found["klom_forget"].reference
    assert found["klom_retain"].value == pytest.approx(found["klom_retain"].reference, rel=0.3)
    assert found["klom_forget_p95"].value >= found["klom_forget"].value


def test_the_numbers_are_those_of_the_functions() -> None:
    sides = drawn(0, 1.0), drawn(1), drawn(2)
    found = {m.metric: m for m in evaluate_populations(Populations(*sides))}
    assert found["u_lira"].value == u_lira(sides[0]["forget"], sides[1]["forget"]).mean()
    assert found["klom_test"].reference == kl_of_margins(sides[1]["test"], sides[2]["test"]).mean()
    assert found["u_lira"].low < found["u_lira"].value < found["u_lira"].high


def test_few_models_have_no_rate_at_one_per_cent() -> None:
    few = [{name: margins[:4, :5] for name, margins in drawn(i).items()} for i in range(3)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = {m.metric: m for m in evaluate_populations(Populations(*few))}
    assert found["u_lira_tpr"].value is None and "needs 100 judged rows" in found["u_lira_tpr"].note


def test_populations_are_trained_once_and_forget_by_the_method(
    threes: UnlearnSplits, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setenv("DEMUR_CACHE", str(tmp_path))
    training = {"epochs": 12, "learning_rate": 0.1}
    nothing = train_populations(small_net(), threes, None, {}, 4, **training)  # type: ignore[arg-type]
    monkeypatch.setattr(ensembles, "train_ensemble", lambda *_, **__: pytest.fail("trained again"))
    ascent = {"epochs": 3, "learning_rate": 0.05}
    gone = train_populations(small_net(), threes, "ga", ascent, 4, **training)  # type: ignore[arg-type]
    assert {side["forget"].shape for side in (gone.unlearned, gone.oracle, gone.second)} == {(4, len(threes.forget))}
    assert np.array_equal(nothing.oracle["test"], gone.oracle["test"])
    assert not np.allclose(gone.oracle["retain"], gone.second["retain"])
    assert nothing.unlearned["forget"].mean() > 0 > nothing.oracle["forget"].mean()
    assert gone.unlearned["forget"].mean() < nothing.unlearned["forget"].mean()
    monkeypatch.setattr("demur.audits.classifiers.populations.edit", lambda *_, **__: pytest.fail("edited again"))
    again = train_populations(small_net(), threes, "ga", ascent, 4, **training)  # type: ignore[arg-type]
    assert np.array_equal(again.unlearned["forget"], gone.unlearned["forget"])
    with pytest.raises(UsageError, match="needs four models, not 3"):
        train_populations(small_net(), threes, None, {}, 3)
