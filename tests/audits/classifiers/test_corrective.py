from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from demur.audits.classifiers.corrective import (
    CorrectiveBenchmark,
    corrective_counts,
    dampened,
    edited,
    identified_rows,
)
from demur.data.labelled import Labelled
from demur.data.labelled_sources import read_labelled
from demur.data.manipulations import BackdoorPatch, InterclassSwap, LabelShuffle
from demur.editing.finetune import fresh
from demur.errors import UsageError
from demur.models import train_classifier
from demur.models.classifier import Classifier

TRAIN, TEST = read_labelled("digits:train[0:300]"), read_labelled("digits:test[0:200]")
VALIDATION = read_labelled("digits:test[200:300]")
RECIPE = {"epochs": 8, "learning_rate": 0.1}


def small_net() -> Classifier:
    torch.manual_seed(0)
    return Classifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10)), head="3")


def trained(data: Labelled, seed: int) -> Classifier:
    return train_classifier(fresh(small_net(), seed), data, seed=seed, **RECIPE)


def benchmark(**changes: Any) -> CorrectiveBenchmark:
    given = {
        "data": TRAIN,
        "test": TEST,
        "validation": VALIDATION,
        "manipulation": BackdoorPatch(2),
        "n": 40,
        "train": trained,
        "methods": {"retrain": edited("retrain", RECIPE)},
        "ratios": (0.5, 1.0),
        "seed": 3,
    }
    return CorrectiveBenchmark(**{**given, **changes})


def test_with_everything_found_retraining_is_training_on_the_clean_rows_alone() -> None:
    seen: list[Classifier] = []

    def watched(
        model: Classifier, forget: Labelled, retain: Labelled, seed: int
    ) -> Iterator[tuple[Mapping[str, Any], Classifier]]:
        for options, retrained in edited("retrain", RECIPE)(model, forget, retain, seed):
            seen.append(retrained)
            yield options, retrained

    benchmark(methods={"retrain": watched}, ratios=(1.0,)).run()
    rows = BackdoorPatch(2).manipulate(TRAIN, 40, 3).rows
    untouched = torch.ones(300, dtype=torch.bool).index_fill_(0, rows, False).nonzero()[:, 0]
    assert seen[0].weights_hash() == trained(TRAIN.subset(untouched), 3).weights_hash()


def test_the_curve_begins_with_the_original_and_every_number_has_an_interval() -> None:
    table = benchmark().run()
    start = table[table["ratio"] == 0]
    assert set(start["method"]) == {"original"}
    manipulated = BackdoorPatch(2).manipulate(TRAIN, 40, 3)
    again = corrective_counts(trained(manipulated.data, 3), manipulated, torch.empty(0, dtype=torch.long), TEST)
    assert dict(zip(start["metric"], start["value"], strict=True)) == {k: h / n for k, (h, n) in again.items()}
    assert ((table["low"] <= table["value"]) & (table["value"] <= table["high"])).all()
    assert set(table[table["ratio"] == 1]["metric"]) == {
        "corrected_accuracy",
        "corrected_without_target",
        "attack_success",
        "retained_accuracy",
        "identified_corrected",
        "delete_error",
    }


@pytest.mark.parametrize("seed", range(3))
def test_a_row_is_corrected_or_under_attack_but_not_both(seed: int) -> None:
    manipulated = BackdoorPatch(2).manipulate(TRAIN, 40, seed)
    model, found = trained(manipulated.data, seed), identified_rows(manipulated, 0.5, seed)
    counts = corrective_counts(model, manipulated, found, TEST)
    (corrected, n), (attacked, same) = counts["corrected_without_target"], counts["attack_success"]
    assert n == same == int((TEST.labels != 0).sum()) and corrected + attacked <= n
    rows = found[TRAIN.labels[found] != 0]
    on_found = model.predict(BackdoorPatch(2, value=1.0).shown(TRAIN.subset(rows))).argmax(1) == 0
    assert counts["delete_error"] == (int(on_found.sum()), len(rows))


def test_a_swap_is_measured_on_its_two_classes_and_kept_accuracy_on_the_others() -> None:
    manipulated = InterclassSwap(3, 8).manipulate(TRAIN, 30, 1)
    model = trained(manipulated.data, 1)
    counts = corrective_counts(model, manipulated, identified_rows(manipulated, 1.0), TEST)
    two = (TEST.labels == 3) | (TEST.labels == 8)
    right = model.predict(TEST).argmax(1) == TEST.labels
    assert counts["corrected_accuracy"] == (int(right[two].sum()), int(two.sum()))
    assert counts["retained_accuracy"] == (int(right[~two].sum()), int((~two).sum()))
    assert counts["delete_error"][1] == 30


def test_a_shuffle_has_no_attack_to_count() -> None:
    manipulated = LabelShuffle().manipulate(TRAIN, 60, 1)
    counts = corrective_counts(trained(manipulated.data, 1), manipulated, manipulated.rows[:10], TEST)
    assert "attack_success" not in counts and counts["unidentified_corrected"][1] == 50


def test_more_and_more_is_found_of_the_same_rows() -> None:
    manipulated = LabelShuffle().manipulate(TRAIN, 60, 1)
    found = [set(identified_rows(manipulated, ratio, 5).tolist()) for ratio in (0.1, 0.5, 1.0)]
    assert found[0] < found[1] < found[2] == set(manipulated.rows.tolist())
    assert [len(part) for part in found] == [6, 30, 60]


def test_settings_are_chosen_by_rows_found_and_validation_rows_alone() -> None:
    labels_of_the_patch = TEST.with_labels(torch.zeros_like(TEST.labels))
    methods = {"ft": edited("ft", *({"epochs": 1, "learning_rate": rate} for rate in (1e-4, 0.2)))}
    tables = [benchmark(methods=methods, test=test).run() for test in (TEST, labels_of_the_patch)]
    chosen = [table[table["method"] == "ft"]["options"].tolist()[0] for table in tables]
    assert chosen[0] == chosen[1]
    flipped = benchmark(methods=methods, validation=VALIDATION.with_labels((VALIDATION.labels + 1) % 10)).run()
    kept, lost = (
        {json.loads(o)["learning_rate"] for o in t[t["method"] == "ft"]["options"]} for t in (tables[0], flipped)
    )
    assert kept != lost


def test_dampening_tries_every_pair_and_measures_all_data_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from demur.audits.classifiers import corrective

    calls, real = [], corrective.fisher_diagonal
    monkeypatch.setattr(corrective, "fisher_diagonal", lambda *a, **k: calls.append(1) or real(*a, **k))
    model = trained(TRAIN, 0)
    forget, retain = TRAIN.subset(range(30)), TRAIN.subset(range(30, 300))
    tried = [dict(options) for options, _ in dampened((0.1, 0.5), (1.0, 10.0))(model, forget, retain, 0)]
    assert tried == [{"alpha": a, "lam": b} for a, b in ((1.0, 1.0), (1.0, 10.0), (5.0, 5.0), (5.0, 50.0))]
    assert len(calls) == 1


def _logistic(data: Labelled, seed: int) -> Classifier:
    fitted = LogisticRegression(max_iter=60, tol=1e-2).fit(data.inputs.flatten(1).numpy(), data.labels.numpy())
    model = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), head="1")
    model.head_layer.weight.data = torch.as_tensor(fitted.coef_, dtype=torch.float32)
    model.head_layer.bias.data = torch.as_tensor(fitted.intercept_, dtype=torch.float32)
    return model


def test_the_more_is_found_the_better_retraining_corrects_logistic_regression() -> None:
    def again(
        model: Classifier, forget: Labelled, retain: Labelled, seed: int
    ) -> Iterator[tuple[Mapping[str, Any], Classifier]]:
        yield {}, _logistic(retain, seed)

    curves = []
    for seed in range(20):
        made = benchmark(methods={"retrain": again}, train=_logistic, ratios=(0.25, 0.5, 0.75, 1.0), seed=seed).run()
        curves.append(made[made["metric"] == "corrected_accuracy"].sort_values("ratio")["value"].to_numpy())
    mean = np.mean(curves, axis=0)
    assert (np.diff(mean) > 0).all() and mean[-1] > 0.8 and mean[1] < 0.5


@pytest.mark.parametrize("ratio", [0.0, -0.1, 1.01])
def test_ratios_out_of_range_are_refused(ratio: float) -> None:
    with pytest.raises(UsageError, match="identification ratio"):
        benchmark(ratios=(0.5, ratio))


def test_what_cannot_be_tried_is_refused_before_any_training() -> None:
    with pytest.raises(UsageError, match="unknown editing method 'retrian'"):
        edited("retrian")
    with pytest.raises(UsageError, match="has no option 'epoch'"):
        edited("ft", {"epoch": 3})
    with pytest.raises(UsageError, match="needs a method and a ratio"):
        benchmark(methods={})
    with pytest.raises(UsageError, match="leave a row to be found"):
        identified_rows(LabelShuffle().manipulate(TRAIN, 4, 1), 0.1)
