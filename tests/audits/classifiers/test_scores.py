from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from demur.audits.classifiers import (
    Measured,
    Measurement,
    UnlearnSplits,
    activation_distance,
    average_gap,
    evaluate,
    measure,
    output_kl,
    prediction_agreement,
    tug_of_war,
    zero_retrain_forgetting,
)
from demur.data.labelled import Labelled, split_off
from demur.data.labelled_sources import read_labelled
from demur.errors import UsageError
from demur.intervals import wilson
from demur.models.classifier import Classifier


@pytest.fixture(scope="module")
def measured(threes: UnlearnSplits, original: Classifier, retrained: Classifier) -> dict[str, Measured]:
    models = {"original": original, "retrained": retrained}
    return {name: measure(model, threes, relearn_steps=40) for name, model in models.items()}


def by_metric(found: list[Measurement]) -> dict[str, Measurement]:
    return {m.metric: m for m in found}


def test_a_model_that_knows_and_one_that_never_saw_are_told_apart(
    measured: dict[str, Measured], threes: UnlearnSplits
) -> None:
    found = by_metric(evaluate(measured["original"], threes, measured["retrained"], original=measured["original"]))
    forgotten = found["unlearning_accuracy"]
    assert forgotten.value == 0 and forgotten.reference == 1 and forgotten.gap == 1
    assert (forgotten.low, forgotten.high) == wilson(0, len(threes.forget))
    assert found["unlearning_accuracy_test"].value < 0.3 and found["unlearning_accuracy_test"].reference == 1
    assert found["retain_accuracy"].gap == pytest.approx(0, abs=0.02)
    assert found["mia_nonmember_rate"].value < 0.3 < 0.9 < found["mia_nonmember_rate"].reference
    assert found["mia_member_rate"].value > found["mia_member_rate"].reference
    assert found["tug_of_war"].value == 0 and found["agreement_forget"].value == 0
    assert found["relearn_steps"].value == 0 and found["relearn_steps"].reference > 0
    assert found["anamnesis_index"].value == 0
    assert {m.better for m in found.values()} == {"reference", "higher", "lower"}


def test_a_model_beside_itself_has_no_gap(measured: dict[str, Measured], threes: UnlearnSplits) -> None:
    same = measured["retrained"]
    found = by_metric(evaluate(same, threes, same, original=measured["original"]))
    assert all(m.gap in (0, None) for m in found.values())
    for name in ("average_gap", "activation_distance", "output_kl_forget", "output_kl_test"):
        assert found[name].value == pytest.approx(0) == pytest.approx(found[name].high)
    for name in ("tug_of_war", "tug_of_war_mia", "agreement_forget", "agreement_retain", "anamnesis_index"):
        assert found[name].value == 1


def test_every_comparison_is_the_function_of_that_name(measured: dict[str, Measured], threes: UnlearnSplits) -> None:
    mine, other = measured["original"], measured["retrained"]
    found = by_metric(evaluate(mine, threes, other))
    rows = {"forget": "unlearning_accuracy", "retain": "retain_accuracy", "test": "test_accuracy"}
    values = {k: found[v].value for k, v in rows.items()}, {k: found[v].reference for k, v in rows.items()}
    assert found["tug_of_war"].value == pytest.approx(tug_of_war(*values))
    called = found["mia_nonmember_rate"]
    with_attack = [{**side, "mia": at} for side, at in zip(values, (called.value, called.reference), strict=True)]
    assert found["average_gap"].value == pytest.approx(average_gap(*with_attack))
    assert found["average_gap"].low <= found["average_gap"].value <= found["average_gap"].high
    ours, theirs = mine.logits["forget"].double(), other.logits["forget"].double()
    assert found["activation_distance"].value == pytest.approx(activation_distance(ours.softmax(1), theirs.softmax(1)))
    assert found["output_kl_forget"].value == pytest.approx(output_kl(ours, theirs))
    assert found["agreement_forget"].value == prediction_agreement(ours, theirs)
    untrained = mine.untrained.double().softmax(1)
    wanted = zero_retrain_forgetting(ours.softmax(1), untrained)
    assert found["zero_retrain_forgetting"].value == pytest.approx(wanted)
    assert {m.metric for m in evaluate(mine, threes)} & {"tug_of_war", "relearn_steps"} == set()


def test_each_row_is_put_to_a_model_once(
    original: Classifier, retrained: Classifier, threes: UnlearnSplits, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str]] = []
    predict = Classifier.predict

    def counted(self: Classifier, data: Labelled, batch_size: int = 1024) -> torch.Tensor:
        asked.append((self.weights_hash(), data.name + str(len(data))))
        return predict(self, data, batch_size)

    monkeypatch.setattr(Classifier, "predict", counted)
    evaluate(original, threes, retrained)
    own = [each for each in asked if each[0] in (original.weights_hash(), retrained.weights_hash())]
    assert len(own) == len(set(own)) == 8


def test_rows_of_forgotten_classes_are_set_apart_or_told(
    original: Classifier, threes: UnlearnSplits, measured: dict[str, Measured]
) -> None:
    assert threes.forget_test is not None and set(threes.forget_test.labels.tolist()) == {3}
    assert 3 not in threes.test.labels and threes.whole_classes and not len(threes.left)
    mixed = replace(threes, test=threes.test.joined(threes.forget_test), forget_test=None)
    with pytest.warns(UserWarning, match="forgotten as a whole"):
        found = by_metric(evaluate(original, mixed, metrics=["test_accuracy"]))
    assert "hold class 3, which was to be forgotten" in found["test_accuracy"].note


def test_random_rows_have_class_thresholds_and_no_rows_of_forgotten_classes(original: Classifier) -> None:
    split = split_off(read_labelled("digits:train[0:400]"), "random:40")
    splits = UnlearnSplits.of(split, read_labelled("digits:test[0:300]"))
    found = by_metric(evaluate(original, splits, original))
    assert "unlearning_accuracy_test" not in found and not splits.whole_classes
    rate = found["mia_threshold_member_rate"]
    assert 0 <= rate.low <= rate.value <= rate.high <= 1 and "unseen" in rate.note
    assert found["mia_loss_accuracy"].n == 80


def test_forgetting_too_much_is_told(measured: dict[str, Measured], threes: UnlearnSplits) -> None:
    knows = measured["original"]
    flat = replace(knows, logits={**knows.logits, "forget": torch.zeros_like(knows.logits["forget"])})
    found = by_metric(evaluate(flat, threes, knows, metrics=["mia_member_rate", "zero_retrain_forgetting"]))
    assert "forgot more than never having seen" in found["mia_member_rate"].note
    other = by_metric(evaluate(knows, threes, knows, metrics=["mia_member_rate"]))
    assert not other["mia_member_rate"].note


def test_zrf_is_one_for_the_untrained_network(measured: dict[str, Measured], threes: UnlearnSplits) -> None:
    fresh = replace(measured["original"], logits={"forget": measured["original"].untrained})
    found = evaluate(fresh, threes, metrics=["zero_retrain_forgetting"])[0]
    assert found.value == pytest.approx(1) and found.low == pytest.approx(1)


def test_bad_questions_are_refused(original: Classifier, threes: UnlearnSplits) -> None:
    with pytest.raises(UsageError, match="unknown metric 'tug_of_wars' of a classifier: did you mean tug_of_war"):
        evaluate(original, threes, metrics=["tug_of_wars"])
    with pytest.raises(UsageError, match="needs forget rows"):
        replace(threes, forget=threes.forget.subset([]))
    with pytest.raises(UsageError, match="is to be forgotten and to be kept"):
        replace(threes, retain=threes.retain.joined(threes.forget.subset([2])))
    without = evaluate(original, threes, metrics=["tug_of_war", "relearn_steps"])
    assert [m.value for m in without] == [None, None]
    assert without[0].note == "no retrained model was given" and "before" in without[1].note


def test_a_seed_decides_every_number(measured: dict[str, Measured], threes: UnlearnSplits) -> None:
    first, again = (evaluate(measured["original"], threes, measured["retrained"], seed=5) for _ in range(2))
    assert first == again
    assert np.isfinite([m.value for m in first if m.value is not None]).all()
