from __future__ import annotations

import inspect

import pytest
import torch
from sklearn.linear_model import LogisticRegression, RidgeClassifier

from demur.data.labelled import ForgetSplit
from demur.editing import edit, editor, editors
from demur.errors import DemurError, UsageError
from demur.models.classifier import Classifier
from demur.models.linear_classifier import from_sklearn

SHORT = {"epochs": 1, "models": 20}


def accuracy(model: Classifier, data: object) -> float:
    return float((model.predict(data).argmax(1) == data.labels).float().mean())  # type: ignore[arg-type, attr-defined]


def model_for(name: str, trained: Classifier, split: ForgetSplit) -> Classifier:
    """The network, or for a method that edits none a linear model of a kind that it edits."""
    kinds = editors.get(name).facts["kinds"]
    if "network" in kinds:
        return trained
    estimator = LogisticRegression(max_iter=500) if "logistic" in kinds else RidgeClassifier()
    return from_sklearn(estimator.fit(split.train.inputs.flatten(1).double().numpy(), split.train.labels.numpy()))


@pytest.mark.parametrize("name", editors.names())
def test_every_method_leaves_its_model_alone_and_repeats_itself(
    name: str, trained: Classifier, split: ForgetSplit
) -> None:
    model = model_for(name, trained, split)
    before = model.weights_hash()
    short = {k: v for k, v in SHORT.items() if k in editors.get(name).options}
    first, second = (edit(name, model, split.forget, split.retain, seed=3, **short) for _ in range(2))
    assert model.weights_hash() == before
    assert first.weights_hash() == second.weights_hash()
    assert first.facts["method"] == name and first.facts["seconds"] > 0
    assert not first.module.training


@pytest.mark.parametrize("name", editors.names())
def test_every_method_says_what_its_options_are(name: str) -> None:
    text = inspect.getdoc(editors.get(name).function) or ""
    for option in editors.get(name).options:
        assert option in text.partition("Args:")[2], option


def test_bad_calls_are_refused(trained: Classifier, split: ForgetSplit) -> None:
    none = split.forget.subset([])
    for name, forget, options, said in (
        ("sd", split.forget, {}, "unknown editing method 'sd'"),
        ("ssd", split.forget, {"beta": 1}, "has no option 'beta'"),
        ("ssd", none, {}, "the forget set is empty"),
        ("ssd", split.forget, {"alpha": 0.0}, "alpha must be above 0"),
    ):
        with pytest.raises(UsageError, match=said):
            edit(name, trained, forget, split.retain, **options)


def test_a_method_that_breaks_the_model_says_so(
    trained: Classifier, split: ForgetSplit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(editors, "_components", dict(editors._components))

    @editor("break", paper="none")
    def broken(model: Classifier, forget: object, retain: object, *, seed: int = 0) -> Classifier:
        copy = model.copied()
        with torch.no_grad():
            copy.head_layer.weight.fill_(float("nan"))
        return copy

    with pytest.raises(DemurError, match="broke the model"):
        edit("break", trained, split.forget, split.retain)
