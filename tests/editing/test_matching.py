from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from demur.data.labelled import ForgetSplit
from demur.editing import edit
from demur.editing.attribution import Attribution
from demur.editing.ensembles import Ensemble, train_ensemble
from demur.editing.matching import datamodel_direct, match_logits, matching_set
from demur.errors import UsageError
from demur.models.classifier import Classifier


def attribution_of(split: ForgetSplit, change: Tensor) -> Attribution:
    """β that takes `change`, (rows, classes) for the forget rows and then the others, away with the forget rows."""
    everything = split.forget.joined(split.retain)
    shared = (change / len(split.forget)).expand(len(split.forget), -1, -1)
    return Attribution(shared.numpy(), split.forget.ids.numpy(), everything.ids.numpy())


def test_dm_direct_with_the_true_change_gives_the_oracles_answers(split: ForgetSplit, trained: Classifier) -> None:
    everything = split.forget.joined(split.retain)
    originals, oracles = (
        train_ensemble(trained, rows, 3, epochs=1).logits(everything) for rows in (everything, split.retain)
    )
    found = attribution_of(split, originals.mean(0) - oracles.mean(0))
    direct = datamodel_direct(originals, everything.ids, found, split.forget.ids)
    assert torch.allclose(direct.mean(0), oracles.mean(0), atol=1e-4)
    assert torch.equal(datamodel_direct(originals, everything.ids, found, split.forget.ids, multiplier=0.0), originals)
    wrong = datamodel_direct(originals, everything.ids, found, split.forget.ids, multiplier=-1.0)
    assert torch.allclose(wrong + direct, 2 * originals, atol=1e-4)


def test_the_diagonal_is_what_each_forget_row_does_to_itself() -> None:
    beta = np.arange(18, dtype=np.float32).reshape(3, 3, 2)
    found = Attribution(beta, np.array([5, 6, 7]), np.array([5, 6, 7]))
    direct = datamodel_direct(
        torch.zeros(3, 2), torch.tensor([7, 5, 6]), found, torch.tensor([7, 6]), diagonal_only=True
    )
    assert torch.equal(direct, -torch.from_numpy(np.stack([beta[2, 2], np.zeros(2, np.float32), beta[1, 1]])))


def test_matching_sets_repeat_forget_rows_and_draw_retained_ones_once(split: ForgetSplit) -> None:
    forget, retain = split.forget.subset(range(10)), split.retain
    chosen = matching_set(forget, retain, 2.5, 3.0, seed=1)
    assert chosen.ids[:25].tolist() == forget.ids.repeat(3)[:25].tolist()
    drawn = chosen.ids[25:].tolist()
    assert len(drawn) == len(set(drawn)) == 30 and set(drawn) <= set(retain.ids.tolist())
    assert chosen.ids.tolist() == matching_set(forget, retain, 2.5, 3.0, seed=1).ids.tolist()
    assert len(matching_set(forget, retain, 1.0, 1e6)) == 10 + len(retain)
    with pytest.raises(ValueError, match="leave no rows"):
        matching_set(forget, retain, 0.0, 0.0)


@pytest.mark.parametrize("loss", ["mse", "ce"])
def test_a_model_that_matches_itself_does_not_move(loss: Any, split: ForgetSplit, trained: Classifier) -> None:
    members = Ensemble.of([trained, trained])
    targets = members.logits(split.forget)
    moved = match_logits(members, split.forget, targets, loss=loss, epochs=1, learning_rate=1e-9)
    assert all(torch.allclose(moved.weights[name], w, atol=1e-7) for name, w in members.weights.items())
    if loss == "mse":  # the gradient is 0, and Adam makes no step of it
        moved = match_logits(members, split.forget, targets, epochs=1, learning_rate=1.0)
        assert all(torch.equal(moved.weights[name], w) for name, w in members.weights.items())


@pytest.mark.parametrize("loss", ["mse", "ce"])
def test_matching_is_adam_on_the_distance_to_the_targets(loss: Any, split: ForgetSplit, trained: Classifier) -> None:
    members = Ensemble.of([trained, trained])
    targets = torch.randn(2, len(split.forget), 10, generator=torch.Generator().manual_seed(0))
    settings: dict[str, Any] = {"loss": loss, "learning_rate": 0.01, "gamma": 0.5, "epochs": 3, "weight_decay": 0.1}
    found = match_logits(members, split.forget, targets, **settings)
    alone = trained.copied()
    optimizer = torch.optim.Adam(alone.module.parameters(), lr=0.01)
    begun = [p.detach().clone() for p in alone.module.parameters()]
    for epoch in range(3):
        optimizer.param_groups[0]["lr"] = 0.01 * 0.5**epoch
        logits = alone.logits(split.forget.batch()[0])
        value = (
            (logits - targets[1]).square().mean() if loss == "mse" else F.cross_entropy(logits, targets[1].softmax(1))
        )
        value = value + 0.1 * sum((p - b).square().sum() for p, b in zip(alone.module.parameters(), begun, strict=True))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    assert torch.allclose(found.member(1).predict(split.forget), alone.predict(split.forget), atol=1e-4)


def test_dmm_moves_the_model_to_what_its_attribution_says(
    split: ForgetSplit, trained: Classifier, tmp_path: Path
) -> None:
    everything = split.forget.joined(split.retain)
    change = torch.zeros(len(everything), 10)
    change[: len(split.forget), 3] = 4.0
    found = attribution_of(split, change)
    settings: dict[str, Any] = {"epochs": 60, "learning_rate": 3e-3, "gamma": 1.0}
    made = edit("dmm", trained, split.forget, split.retain, attribution=found, **settings)
    before, after = trained.predict(split.forget), made.predict(split.forget)
    assert float((after - before + change[: len(split.forget)]).square().mean()) < 0.15 * float(
        change[: len(split.forget)].square().mean()
    )
    file = found.save(tmp_path / "beta.npy")
    again = edit("dmm", trained, split.forget, split.retain, attribution=str(file), **settings)
    assert again.weights_hash() == made.weights_hash()
    same = edit("dmm", trained, split.forget, split.retain, attribution=found, multiplier=0.0)
    assert same.weights_hash() == trained.weights_hash()


def test_dmm_trains_its_own_models_where_it_is_given_no_attribution(split: ForgetSplit, trained: Classifier) -> None:
    made = edit("dmm", trained, split.forget, split.retain, models=20, train_epochs=2)
    assert made.facts["models"] == 20 and made.facts["matched"] == 4 * len(split.forget)
    assert -1 <= made.facts["held_out_correlation"] <= 1
    # The rows in another order are the same request: the models are found again.
    other = edit("dmm", trained, split.forget.subset(range(5)), split.retain, models=20, train_epochs=2)
    assert other.facts["matched"] == 20


def test_oracle_matching_nears_the_oracles(split: ForgetSplit, trained: Classifier) -> None:
    oracles = train_ensemble(trained, split.retain, 4, epochs=5, seed=1)
    settings: dict[str, Any] = {"epochs": 60, "learning_rate": 3e-3, "gamma": 1.0}
    goal = oracles.logits(split.forget).mean(0)
    made = edit("om", trained, split.forget, split.retain, oracles=oracles, **settings)
    before, after = (float((m.predict(split.forget) - goal).square().mean()) for m in (trained, made))
    assert after < 0.1 * before
    softly = edit("om", trained, split.forget, split.retain, oracles=oracles, loss="ce", **settings)
    p = oracles.logits(split.forget).softmax(-1).mean(0)
    far, near = ((m.predict(split.forget).softmax(1) - p).abs().mean() for m in (trained, softly))
    assert near < 0.5 * far


def test_bad_requests_are_refused(split: ForgetSplit, trained: Classifier, tmp_path: Path) -> None:
    everything = split.forget.joined(split.retain)
    found = attribution_of(split, torch.zeros(len(everything), 10))
    twice = split.forget.subset([0, 1, 1])
    for forget, options, said in (
        (twice, {"attribution": found}, "is given twice"),
        (twice, {"models": 4, "train_epochs": 1}, "is twice among"),
        (split.retain, {"attribution": found}, "does not tell of forget row"),
        (split.forget, {"attribution": attribution_of(split, torch.zeros(len(everything), 3))}, "tells of 3 outputs"),
        (split.forget, {"attribution": str(tmp_path / "none.npy")}, "no attribution at"),
        (split.forget, {"attribution": found, "loss": "mae"}, "unknown loss 'mae'"),
    ):
        with pytest.raises(UsageError, match=said):
            edit("dmm", trained, forget, split.retain, **options)
