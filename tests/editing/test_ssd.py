from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from demur.data.batch import Encoded, collate
from demur.data.labelled import ForgetSplit, Labelled
from demur.editing import Importances, edit, editors, fisher_diagonal
from demur.editing.fisher import token_fisher
from demur.editing.ssd import dampen, quantile_alpha, ssd_language_model
from demur.errors import UsageError
from demur.models import LanguageModel, encode, score
from demur.models.classifier import Classifier
from editing.conftest import small_net
from editing.test_registry import accuracy
from tiny import tiny_lm

THETA = torch.tensor([1.0, -2.0, 0.5, 3.0])
TRAIN, FORGET = torch.tensor([0.5, 0.02, 0.3, 0.001]), torch.tensor([0.6, 0.5, 0.2, 0.05])


def test_the_worked_step() -> None:
    new, selected = dampen(THETA, FORGET, TRAIN, alpha=10, lam=1)
    assert selected.tolist() == [False, True, False, True]
    torch.testing.assert_close(new, torch.tensor([1.0, -0.08, 0.5, 0.06]))
    new, again = dampen(THETA, FORGET, TRAIN, alpha=5, lam=2)
    assert again.tolist() == selected.tolist()
    torch.testing.assert_close(new, torch.tensor([1.0, -0.16, 0.5, 0.12]))


@given(alpha=st.floats(0.1, 50), lam=st.floats(0, 20), seed=st.integers(0, 99))
def test_weights_never_grow_and_only_selected_ones_change(alpha: float, lam: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    theta = torch.randn(20, generator=generator)
    own, every = (torch.rand(20, generator=generator) * (torch.rand(20, generator=generator) > 0.2) for _ in range(2))
    new, selected = dampen(theta, own, every, alpha, lam)
    assert (new.abs() <= theta.abs()).all() and (new[~selected] == theta[~selected]).all() and new.isfinite().all()
    if lam == 0:
        assert (new[selected] == 0).all()


def test_importance_is_the_mean_of_squared_gradients_of_single_samples(split: ForgetSplit) -> None:
    model, data = small_net(), split.forget.subset(range(7))
    found = fisher_diagonal(model, data, batch_size=3)
    total = {name: torch.zeros_like(p) for name, p in model.module.named_parameters()}
    for row in range(len(data)):
        inputs, labels = data.batch(slice(row, row + 1))
        model.module.zero_grad()
        F.cross_entropy(model.logits(inputs), labels).backward()
        for name, p in model.module.named_parameters():
            assert p.grad is not None
            total[name] += p.grad.square() / len(data)
    for name, value in total.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-9)


def test_importance_of_softmax_regression_is_its_closed_form() -> None:
    torch.manual_seed(0)
    model = Classifier(nn.Sequential(nn.Linear(4, 3)), head="0")
    data = Labelled(torch.randn(9, 4), torch.arange(9) % 3, ("a", "b", "c"))
    error = model.predict(data).softmax(1) - F.one_hot(data.labels, 3)
    expected = torch.einsum("ic,ij->cj", error.square(), data.inputs.square()) / 9
    torch.testing.assert_close(fisher_diagonal(model, data)["0.weight"], expected)


def test_batch_importance_squares_the_gradient_of_the_batch(split: ForgetSplit) -> None:
    model, data = small_net(), split.forget.subset(range(7))
    parts: list[Tensor] = []
    for start in (0, 4):
        inputs, labels = data.batch(slice(start, start + 4))
        model.module.zero_grad()
        F.cross_entropy(model.logits(inputs), labels).backward()
        grad = model.head_layer.weight.grad
        assert grad is not None
        parts.append(grad.square().clone())
    found = fisher_diagonal(model, data, fisher="batch", batch_size=4)["3.weight"]
    torch.testing.assert_close(found, (parts[0] + parts[1]) / 2, rtol=1e-5, atol=1e-9)


def test_the_label_free_importance_reads_no_label(split: ForgetSplit) -> None:
    wrong = split.forget.with_labels((split.forget.labels + 1) % 10)
    right, other = (fisher_diagonal(small_net(), d, loss="logit_norm") for d in (split.forget, wrong))
    assert all(torch.equal(right[name], other[name]) for name in right)


def test_a_class_is_forgotten_and_the_rest_stays(trained: Classifier, split: ForgetSplit) -> None:
    edited = edit("ssd", trained, split.forget, split.retain, alpha_relative=0.4)
    assert accuracy(trained, split.forget) > 0.9
    assert accuracy(edited, split.forget) <= 0.3 and accuracy(edited, split.retain) >= 0.75
    assert 0.001 < edited.facts["selected"] < 0.2
    own, every = (fisher_diagonal(trained, data) for data in (split.forget, split.train))
    held = sum(v.sum() for v in own.values()) * len(split.forget) / (sum(v.sum() for v in every.values()) * 300)
    assert edited.facts["held by forget rows"] == pytest.approx(float(held), rel=1e-4)


def test_at_its_bound_alpha_selects_nothing_and_says_so(trained: Classifier, split: ForgetSplit) -> None:
    with pytest.warns(UserWarning, match="dampened nothing"):
        same = edit("ssd", trained, split.forget, split.retain, alpha_relative=1.001)
    assert same.weights_hash() == trained.weights_hash()


def test_kept_importances_give_the_same_model_and_must_fit_it(trained: Classifier, split: ForgetSplit) -> None:
    kept = fisher_diagonal(trained, split.retain.joined(split.forget))
    whole = edit("ssd", trained, split.forget, split.retain, alpha=3.0)
    spared = edit("ssd", trained, split.forget, split.retain, alpha=3.0, importances=kept)
    assert whole.weights_hash() == spared.weights_hash()
    with pytest.raises(UsageError, match=r"of another model: 3\.bias"):
        edit("ssd", trained, split.forget, split.retain, importances={n: v for n, v in kept.items() if n != "3.bias"})


def test_importances_survive_a_file_bit_for_bit(trained: Classifier, split: ForgetSplit, tmp_path: Path) -> None:
    file = tmp_path / "kept.safetensors"
    Importances.measured(trained, split.train).save(file)
    whole = edit("ssd", trained, split.forget, split.retain, alpha=3.0)
    spared = edit("ssd", trained, split.forget, split.retain.subset([0]), alpha=3.0, importances=str(file))
    assert spared.weights_hash() == whole.weights_hash()
    relative = edit("ssd", trained, split.forget, split.retain.subset([0]), alpha_relative=0.4, importances=file)
    assert relative.facts["alpha"] == pytest.approx(0.4 * 300 / len(split.forget))


def test_importances_of_parts_merge_into_those_of_the_whole(trained: Classifier, split: ForgetSplit) -> None:
    whole = Importances.measured(trained, split.train)
    parts = [Importances.measured(trained, split.train.subset(range(a, b))) for a, b in ((0, 7), (7, 200), (200, 300))]
    merged = parts[0].merged(*parts[1:])
    assert merged.rows == 300
    for name, value in whole.values.items():
        torch.testing.assert_close(merged.values[name], value, rtol=1e-5, atol=1e-9)


def test_importances_that_do_not_fit_are_refused(trained: Classifier, split: ForgetSplit, tmp_path: Path) -> None:
    kept = Importances.measured(trained, split.forget)
    other = Importances.measured(trained, split.forget, loss="logit_norm")
    with pytest.raises(UsageError, match="measured in the same way"):
        kept.merged(other)
    with pytest.raises(UsageError, match="measured with fisher=sample and loss=logit_norm"):
        edit("ssd", trained, split.forget, split.retain, importances=other)
    file = tmp_path / "broken.safetensors"
    file.write_bytes(b"nothing")
    for missing in (file, tmp_path / "absent"):
        with pytest.raises(UsageError, match="cannot be read as importances"):
            edit("ssd", trained, split.forget, split.retain, importances=missing)


def test_frozen_parameters_have_no_importance_and_stay(trained: Classifier, split: ForgetSplit) -> None:
    model = trained.copied()
    frozen = model.head_layer.weight.requires_grad_(False)
    assert not fisher_diagonal(model, split.forget)["3.weight"].any()
    edited = edit("ssd", model, split.forget, split.retain, alpha=2.0)
    assert torch.equal(edited.head_layer.weight, frozen) and edited.facts["selected"] > 0


def test_importance_of_samples_does_not_depend_on_the_batches(split: ForgetSplit) -> None:
    one, other = (fisher_diagonal(small_net(), split.train, batch_size=size) for size in (1, 128))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_adaptive_alpha_selects_its_share_of_all_weights(trained: Classifier, split: ForgetSplit) -> None:
    edited = edit("ssd", trained, split.forget, split.retain, alpha="quantile")
    share = math.log1p(100 * len(split.forget) / 300) / 100
    count = sum(p.numel() for p in trained.module.parameters())
    assert edited.facts["selected"] == pytest.approx(share, abs=1.5 / count)
    assert accuracy(edited, split.forget) <= 0.3 and accuracy(edited, split.retain) >= 0.75


@given(st.lists(st.floats(0, 1e6, width=32), min_size=1, max_size=60), st.floats(0.001, 1))
def test_the_adaptive_alpha_is_at_least_one_and_selects_no_more_than_its_share(
    ratios: list[float], part: float
) -> None:
    alpha = quantile_alpha(torch.tensor(ratios), part)
    assert alpha >= 1
    assert sum(ratio > alpha for ratio in ratios) <= math.log1p(100 * part) / 100 * len(ratios) + 1e-9


def test_forgetting_everything_selects_nothing(trained: Classifier, split: ForgetSplit) -> None:
    kept = Importances.measured(trained, split.forget)
    for alpha in (1.0, "quantile"):
        with pytest.warns(UserWarning, match="dampened nothing"):
            same = edit("ssd", trained, split.forget, split.retain, alpha=alpha, importances=kept)
        assert same.weights_hash() == trained.weights_hash()


def test_retain_rows_in_place_of_all_data_select_more(trained: Classifier, split: ForgetSplit) -> None:
    every, kept = (
        edit("ssd", trained, split.forget, split.retain, alpha=4.0, reference=r).facts for r in ("all", "retain")
    )
    assert kept["selected"] > every["selected"]
    # I_D is a mixture of I_f and I_r, so that each ratio of one kind gives that of the other.
    n, f = 300, len(split.forget)
    bound = every["ratio quantiles"]["0.99"]
    assert kept["ratio quantiles"]["0.99"] == pytest.approx((n - f) * bound / (n - f * bound), rel=1e-3)


def test_parameters_can_be_left_out(trained: Classifier, split: ForgetSplit) -> None:
    edited = edit("ssd", trained, split.forget, split.retain, alpha=2.0, include="3.*, 1.*", exclude="*.bias")
    assert set(edited.facts["selected by tensor"]) == {"1.weight", "3.weight"}
    before = dict(trained.module.named_parameters())
    moved = {name for name, p in edited.module.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"1.weight", "3.weight"}
    with pytest.raises(UsageError, match=r"include 'head\.\*' without exclude '' leaves no parameter"):
        edit("ssd", trained, split.forget, split.retain, include="head.*")


def test_half_precision_keeps_importances_that_its_squares_would_lose(split: ForgetSplit) -> None:
    model = small_net()
    full = fisher_diagonal(model, split.forget)
    half = model.copied()
    half.module.to(torch.bfloat16)
    rows = replace(split.forget, inputs=split.forget.inputs.bfloat16())
    found = fisher_diagonal(half, rows)["3.weight"]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, full["3.weight"], rtol=0.2, atol=1e-4)


def test_the_caller_keeps_its_gradients_and_mode(trained: Classifier, split: ForgetSplit) -> None:
    model = trained.copied()
    model.module.train()
    for p in model.module.parameters():
        p.grad = torch.ones_like(p)
    edit("ssd", model, split.forget, split.retain, alpha=2.0)
    assert model.module.training and all(bool((p.grad == 1).all()) for p in model.module.parameters())


def test_a_language_model_loses_the_answers_it_is_to_forget() -> None:
    lm = tiny_lm()
    rows = encode(lm, ["who wrote the green lamp?", "where was oda marsh born?"], ["by oda marsh.", "in kell."])
    optimizer = torch.optim.Adam(lm.model.parameters(), lr=3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        score(lm.model, collate(rows, lm.pad_id)).nll.backward()
        optimizer.step()
    before = lm.weights_hash()
    changed, facts = ssd_language_model(lm, rows[:1], rows[1:], alpha=1.9)
    loss = lambda m, row: float(score(m.model, collate([row], m.pad_id)).nll.detach())  # noqa: E731
    worse = [loss(changed, row) - loss(lm, row) for row in rows]
    assert lm.weights_hash() == before and 0 < facts["selected"] < 0.5
    assert worse[0] > 2 * max(worse[1], 0.05)


def test_importance_of_tokens_is_that_of_the_mean_loss_of_each_row() -> None:
    lm = tiny_lm()
    rows = encode(lm, ["who?", "where was oda marsh born?"], ["oda marsh.", "in the town of kell."])
    found = token_fisher(lm, rows)
    for name, p in lm.model.named_parameters():
        grads = [torch.autograd.grad(_plain_loss(lm, row), p, allow_unused=True)[0] for row in rows]
        expected = sum(torch.zeros_like(p) if g is None else g.square() for g in grads) / 2
        torch.testing.assert_close(found[name], expected, rtol=1e-3, atol=1e-8)


def _plain_loss(lm: LanguageModel, row: Encoded) -> Tensor:
    logits = lm.model(torch.tensor([row.input_ids])).logits[0, row.prompt_length - 1 : -1]
    return F.cross_entropy(logits.float(), torch.tensor(row.label_ids))


def test_alpha_is_a_number_or_the_one_word_from_the_command_line_too() -> None:
    typed = editors.get("ssd").typed
    assert typed({"alpha": "quantile"}) == {"alpha": "quantile"} and typed({"alpha": "4"}) == {"alpha": 4.0}
    with pytest.raises(UsageError, match="option 'alpha' of ssd must be a number, not 'quartile'"):
        typed({"alpha": "quartile"})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"alpha": "quartile"}, "alpha must be a number or quantile, not 'quartile'"),
        ({"reference": "test"}, "reference must be all or retain"),
        ({"reference": "retain", "alpha_relative": 0.4}, "and all with alpha_relative"),
        ({"fisher": "batches"}, "importance needs fisher sample or batch"),
    ],
)
def test_unknown_choices_are_refused(
    options: dict[str, Any], said: str, trained: Classifier, split: ForgetSplit
) -> None:
    with pytest.raises(UsageError, match=said):
        edit("ssd", trained, split.forget, split.retain, **options)


@pytest.mark.parametrize(("alpha", "lam"), [(0.0, 1.0), (-1.0, 1.0), (1.0, -0.1)])
def test_options_out_of_range_are_refused(alpha: float, lam: float) -> None:
    with pytest.raises(ValueError, match="alpha must be above 0 and lam at least 0"):
        dampen(THETA, FORGET, TRAIN, alpha, lam)
