from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from demur.audits.classifiers import RepresentationAudit, top_related_classes
from demur.audits.classifiers.measured import UnlearnSplits
from demur.audits.classifiers.representation import harmonic_score, logit_closeness, representation_closeness
from demur.data.labelled import ForgetSplit, Labelled, split_off
from demur.data.labelled_sources import read_labelled
from demur.editing import edit
from demur.errors import UsageError
from demur.models import train_classifier
from demur.models.classifier import Classifier
from demur.probes import cka, knn_accuracy

share = st.floats(0, 1)


def net(seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    return Classifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10)), head="3")


@pytest.fixture(scope="module")
def split() -> ForgetSplit:
    torch.set_num_threads(1)
    return split_off(read_labelled("digits:train[0:300]"), "class:3,8")


@pytest.fixture(scope="module")
def splits(split: ForgetSplit) -> UnlearnSplits:
    return UnlearnSplits.of(split, read_labelled("digits:test[0:200]"))


@pytest.fixture(scope="module")
def original(split: ForgetSplit) -> Classifier:
    return train_classifier(net(), split.train, epochs=15, learning_rate=0.1)


@pytest.fixture(scope="module")
def retrained(split: ForgetSplit) -> Classifier:
    return train_classifier(net(1), split.retain, epochs=15, learning_rate=0.1)


def test_the_worked_harmonic_score() -> None:
    assert harmonic_score(0.99, 0.5) == pytest.approx(0.664430, abs=1e-6)


@given(first=share, second=share)
def test_the_harmonic_score_lies_between_and_is_zero_where_either_is(first: float, second: float) -> None:
    found = harmonic_score(first, second)
    assert 0 <= found <= max(first, second) + 1e-12
    assert harmonic_score(first, 0) == harmonic_score(0, second) == 0
    assert harmonic_score(first, first) == pytest.approx(first)


def test_closeness_of_answers_and_of_features_by_hand() -> None:
    assert logit_closeness({"a": 0.9, "b": 0.0}, {"a": 1.0, "b": 0.2}) == pytest.approx(0.9 * 0.8)
    knn, wanted, alike = {"a": 0.9, "b": 0.5}, {"a": 1.0, "b": 0.7}, {"a": 0.5, "b": 1.0}
    assert representation_closeness(knn, wanted, alike, "product") == pytest.approx(0.45 * 0.8)
    assert representation_closeness(knn, wanted, alike, "mean") == pytest.approx((0.45 + 0.8) / 2)
    assert representation_closeness(knn, wanted, {**alike, "a": -0.1}, "product") == 0
    with pytest.raises(UsageError, match="both models need the same sets"):
        logit_closeness({"a": 1.0}, {"b": 1.0})
    with pytest.raises(UsageError, match="aggregate is product or mean"):
        representation_closeness(knn, wanted, alike, "sum")  # type: ignore[arg-type]


def test_a_retrained_model_is_perfect_beside_itself(splits: UnlearnSplits, retrained: Classifier) -> None:
    found = RepresentationAudit(splits, retrained).run(retrained)
    assert (found.agl, found.agr, found.h_lr) == pytest.approx((1, 1, 1))
    assert set(found.cka_retrained) == {"forget", "retain", "test", "forget_test", "all"} and not found.cka_original


def test_the_numbers_are_those_of_the_probes_on_the_features(
    splits: UnlearnSplits, original: Classifier, retrained: Classifier
) -> None:
    other = read_labelled("digits:test[200:300]")
    audit = RepresentationAudit(splits, retrained, original, {"other": other}, k=3)
    found = audit.run(original)
    forget, test = splits.forget, splits.forget_test
    assert test is not None
    mine, theirs = original.features(forget), retrained.features(forget)
    assert found.cka_retrained["forget"] == pytest.approx(cka(mine, theirs))
    assert found.cka_original == pytest.approx(dict.fromkeys(found.cka_retrained, 1.0))
    expected = knn_accuracy(mine, forget.labels, original.features(test), test.labels, 3)
    assert found.knn["forget"] == pytest.approx(expected)
    order = torch.randperm(100, generator=torch.Generator().manual_seed(2))
    features = original.features(other)
    known, asked = order[:80], order[80:]
    expected = knn_accuracy(features[known], other.labels[known], features[asked], other.labels[asked], 3)
    assert found.knn["other"] == pytest.approx(expected) and len(found.knn_correct["other"]) == 20
    right = (original.predict(splits.test).argmax(1) == splits.test.labels).double().mean()
    assert found.accuracy["test"] == pytest.approx(float(right))
    assert found.rows["all"] == 300 and found.summary["knn:other"] == found.knn["other"]


def test_hidden_outputs_pass_by_their_answers_and_not_by_their_features(
    split: ForgetSplit, splits: UnlearnSplits, original: Classifier, retrained: Classifier
) -> None:
    masked = edit("head-mask", original, split.forget, split.retain)
    audit = RepresentationAudit(splits, retrained, original)
    found, before = audit.run(masked), audit.run(original)
    assert found.agl > 0.9 > 0.2 > before.agl
    assert found.agr == pytest.approx(before.agr) and found.cka_original["all"] == pytest.approx(1)
    turned = RepresentationAudit(splits, original, retrained).run(masked)
    assert turned.agr == pytest.approx(1)


def test_layers_are_compared_where_they_are_named(
    splits: UnlearnSplits, original: Classifier, retrained: Classifier
) -> None:
    found = RepresentationAudit(splits, retrained, layers=("2", "3")).run(original)
    assert found.cka_layers["2"] == pytest.approx(found.cka_retrained["all"])
    rows = splits.retain.joined(splits.forget)
    assert found.cka_layers["3"] == pytest.approx(cka(original.predict(rows), retrained.predict(rows)), abs=1e-6)
    with pytest.raises(UsageError, match="has no module 'last': it has 0, 1, 2, 3"):
        RepresentationAudit(splits, retrained, layers=("last",))


def test_rows_of_no_whole_class_are_told_from_four_fifths_of_themselves(original: Classifier) -> None:
    parts = split_off(read_labelled("digits:train[0:300]"), "random:50")
    splits = UnlearnSplits.of(parts, read_labelled("digits:test[0:100]"))
    found = RepresentationAudit(splits, original).run(original)
    assert len(found.knn_correct["forget"]) == 10 and "forget_test" not in found.accuracy


def test_downstream_sets_have_names_of_their_own_and_enough_rows(splits: UnlearnSplits, retrained: Classifier) -> None:
    with pytest.raises(UsageError, match="'retain' cannot name a downstream set"):
        RepresentationAudit(splits, retrained, downstream={"retain": splits.test})
    with pytest.raises(UsageError, match="5 nearest neighbours cannot be found"):
        RepresentationAudit(splits, retrained, downstream={"few": splits.test.subset([0, 1, 2])})


def test_related_classes_are_those_a_model_sees_most_often_elsewhere(split: ForgetSplit, original: Classifier) -> None:
    threes = split.train.subset((torch.isin(split.train.labels, torch.tensor([3, 8]))).nonzero()[:, 0])
    unknown = Labelled(threes.inputs, torch.zeros(len(threes), dtype=torch.long), ("a",))
    assert set(top_related_classes(original, unknown, 2)) == {3, 8}
    counts = np.bincount(original.predict(unknown).argmax(1).numpy(), minlength=10)
    ranked = top_related_classes(original, unknown, 10)
    assert ranked == sorted(range(10), key=lambda c: (-counts[c], c))
    for n in (0, 11):
        with pytest.raises(UsageError, match="has 10"):
            top_related_classes(original, unknown, n)
