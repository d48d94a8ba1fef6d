from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import nn

from demur.data.labelled import Labelled
from demur.data.labelled_sources import read_labelled
from demur.editing.datamodels import agreement, half_masks, resampled_datamodel, ridge_datamodel
from demur.errors import UsageError
from demur.models.classifier import Classifier


@pytest.mark.parametrize("models", [12, 90])
def test_it_is_the_ridge_regression_of_scikit_learn(models: int) -> None:
    masks = half_masks(models, 30, seed=1)
    outputs = torch.randn(models, 4, 3, generator=torch.Generator().manual_seed(0)).double() + 5
    found = ridge_datamodel(masks, outputs, ridge=7.0)
    a = masks.double().numpy()
    peer = Ridge(alpha=7.0, fit_intercept=False).fit(a - a.mean(0), (outputs - outputs.mean(0)).flatten(1).numpy())
    assert torch.allclose(found, torch.from_numpy(peer.coef_.T.reshape(30, 4, 3)), atol=1e-9)
    assert torch.allclose(ridge_datamodel(masks, outputs, 7.0, torch.tensor([4, 2])), found[[4, 2]], atol=1e-12)


def test_effects_that_add_up_are_found_exactly() -> None:
    effects = torch.randn(20, 2, generator=torch.Generator().manual_seed(0)).double()
    masks = half_masks(400, 20)
    found = ridge_datamodel(masks, masks.double() @ effects + 3, ridge=1e-9)
    # Masks of equal size cannot tell a constant from the same effect of every row.
    assert torch.allclose(found - found.mean(0), effects - effects.mean(0), atol=1e-6)


def test_masks_hold_as_many_rows_for_each_model_and_are_not_the_same() -> None:
    masks = half_masks(50, 31, seed=2, fraction=0.25)
    assert masks.sum(1).unique().tolist() == [8]
    assert len({tuple(m.tolist()) for m in masks}) == 50
    assert torch.equal(masks, half_masks(50, 31, seed=2, fraction=0.25))
    with pytest.raises(UsageError, match="leaves none out"):
        half_masks(2, 10, fraction=1.0)


def test_agreement_is_a_correlation_and_a_slope() -> None:
    p = torch.tensor([1.0, 2.0, 4.0])
    assert agreement(p, 3 * p + 1) == pytest.approx((1.0, 3.0))
    assert agreement(p, -p)[0] == pytest.approx(-1.0)


def test_a_row_that_alone_has_its_class_is_what_its_class_comes_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEMUR_CACHE", str(tmp_path))
    data = read_labelled("digits:train[0:40]")
    only = data.with_labels(torch.where(torch.arange(40) == 3, 9, data.labels % 5))
    linear = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), head="1")
    found = resampled_datamodel(linear, only, 120, epochs=5, seed=1)
    target = only.subset([3])
    beta = found.beta(target)
    assert int(np.argmax(beta.beta[:, 0, 9])) == 3
    few = found.beta(target, rows=data.ids[[7, 3]])
    assert few.rows.tolist() == data.ids[[7, 3]].tolist()
    assert np.allclose(few.beta, beta.beta[[7, 3]], atol=1e-6)
    correlation, scale = found.held_out(target)
    assert correlation > 0.5 and 0.5 < scale < 3
    with pytest.raises(UsageError, match="is not in the set"):
        found.beta(target, rows=[99999])


def test_bad_regressions_are_refused() -> None:
    masks, data = half_masks(6, 4), torch.zeros(5, 1)
    with pytest.raises(ValueError, match="6 masks and 5 outputs"):
        ridge_datamodel(masks, data, 1.0)
    with pytest.raises(ValueError, match="ridge 0"):
        ridge_datamodel(masks, torch.zeros(6, 1), 0.0)


def test_a_set_with_two_of_the_same_id_has_one_answer_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEMUR_CACHE", str(tmp_path))
    data: Labelled = read_labelled("digits:train[0:30]")
    linear = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), head="1")
    twice = data.subset([2, 5, 2])
    found = resampled_datamodel(linear, data, 10, epochs=1).beta(twice)
    assert torch.equal(*(found.removed(data.ids[[1]], twice.ids[[i]]) for i in (0, 2)))
