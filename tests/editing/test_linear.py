from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge, RidgeClassifier

from demur.data.labelled import ForgetSplit, Labelled, split_off
from demur.data.labelled_sources import read_labelled
from demur.editing import edit, leave_out, newton_step
from demur.errors import UsageError
from demur.models import LinearClassifier, from_sklearn, load_classifier


def made(classes: int, rows: int = 400, features: int = 6, noise: float = 1.0) -> Labelled:
    """Classes around centres that overlap."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, rows)
    inputs = rng.normal(size=(classes, features))[labels] + noise * rng.normal(size=(rows, features))
    return Labelled(torch.as_tensor(inputs), torch.as_tensor(labels), tuple(map(str, range(classes))))


def logistic(data: Labelled, **options: object) -> LogisticRegression:
    fit = LogisticRegression(tol=1e-10, max_iter=10_000, **options)  # type: ignore[arg-type]
    return fit.fit(data.inputs.numpy(), data.labels.numpy())


def coded(data: Labelled, columns: int) -> np.ndarray:
    return np.eye(columns)[data.labels.numpy()]


REGRESSIONS = {
    "ridge classifier": (RidgeClassifier(alpha=2.0), 3, lambda d: d.labels.numpy()),
    "ridge classifier of two": (RidgeClassifier(alpha=0.5, fit_intercept=False), 2, lambda d: d.labels.numpy()),
    "ridge": (Ridge(alpha=1.5), 3, lambda d: coded(d, 3)),
    "ridge on numbers": (Ridge(alpha=1.5), 2, lambda d: d.labels.numpy()),
    "least squares": (LinearRegression(), 3, lambda d: coded(d, 3)),
    "least squares on numbers": (LinearRegression(fit_intercept=False), 2, lambda d: d.labels.numpy()),
}


@pytest.mark.parametrize("name", REGRESSIONS)
@pytest.mark.parametrize("forget", ["random:40", "class:1"])
def test_downdate_is_the_fit_that_scikit_learn_makes_without_the_rows(name: str, forget: str) -> None:
    estimator, classes, targets = REGRESSIONS[name]
    data = made(classes)
    split = split_off(data, forget)
    model = from_sklearn(estimator.fit(data.inputs.numpy(), targets(data)))
    edited = edit("downdate", model, split.forget, split.retain)
    again = edit("retrain", model, split.forget, split.retain)
    torch.testing.assert_close(edited.solution, again.solution, rtol=0, atol=1e-8)
    if not (forget.startswith("class") and name.startswith("ridge classifier")):  # it must be shown all classes
        kept = from_sklearn(estimator.fit(split.retain.inputs.numpy(), targets(split.retain)))
        torch.testing.assert_close(edited.solution, kept.solution, rtol=0, atol=1e-8)
    assert edited.facts["moved"] > 0


@settings(max_examples=25)
@given(
    rows=st.integers(12, 30),
    gone=st.integers(0, 6),
    outputs=st.integers(1, 3),
    alpha=st.sampled_from([0.0, 0.1, 10.0]),
    intercept=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_rows_left_out_leave_no_trace_whatever_the_targets(
    rows: int, gone: int, outputs: int, alpha: float, intercept: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    inputs, targets = rng.normal(size=(rows, 4)), rng.normal(size=(rows, outputs))
    forget = np.arange(rows) < gone

    def fitted(chosen: np.ndarray) -> torch.Tensor:
        x = np.c_[inputs[chosen], np.ones(chosen.sum())] if intercept else np.c_[inputs[chosen], np.zeros(chosen.sum())]
        penalty = np.diag([alpha] * 4 + [0.0 if intercept else 1.0])
        return torch.as_tensor(np.linalg.solve(x.T @ x + penalty, x.T @ targets[chosen]))

    left = leave_out(
        torch.as_tensor(inputs),
        torch.as_tensor(targets),
        torch.as_tensor(forget),
        fitted(np.ones(rows, bool)),
        alpha=alpha,
        intercept=intercept,
    )
    torch.testing.assert_close(left, fitted(~forget), rtol=1e-7, atol=1e-7)


def test_downdate_refuses_what_would_not_be_exact() -> None:
    data = made(3)
    split = split_off(data, "random:40")
    model = from_sklearn(Ridge(alpha=1.0).fit(data.inputs.numpy(), coded(data, 3)))
    with pytest.raises(UsageError, match="not the exact fit of these rows"):
        edit("downdate", model, split.forget, split.retain.subset(range(300)))
    twice = torch.cat([data.inputs, data.inputs[:, :1]], 1)
    dependent = Labelled(twice, data.labels, data.classes)
    parts = split_off(dependent, "random:40")
    model = from_sklearn(LinearRegression().fit(twice.numpy(), coded(data, 3)))
    with pytest.raises(UsageError, match="do not decide all coefficients"):
        edit("downdate", model, parts.forget, parts.retain)
    few = split_off(made(2, rows=12), "random:8")
    model = from_sklearn(LinearRegression().fit(few.train.inputs.numpy(), coded(few.train, 2)))
    with pytest.raises(UsageError, match="do not decide all coefficients"):
        edit("downdate", model, few.forget, few.retain)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("intercept", [True, False])
def test_newton_steps_converge_to_the_refit(classes: int, intercept: bool) -> None:
    data = made(classes)
    split = split_off(data, "random:80")
    model = from_sklearn(logistic(data, C=0.7, fit_intercept=intercept))
    refit = from_sklearn(logistic(split.retain, C=0.7, fit_intercept=intercept)).solution
    errors = [
        float((edit("newton", model, split.forget, split.retain, steps=n).solution - refit).norm()) for n in (1, 2, 6)
    ]
    assert errors[0] > 20 * errors[1] and errors[2] < 1e-5
    again = edit("retrain", model, split.forget, split.retain)
    torch.testing.assert_close(again.solution, refit, rtol=0, atol=1e-5)


@pytest.mark.parametrize("classes", [2, 3])
def test_the_error_of_one_newton_step_falls_with_the_square_of_the_forget_share(classes: int) -> None:
    counts, errors = (1, 2, 4, 8), []
    base = made(classes, rows=2000, noise=4.0)
    for count in counts:
        # The same row again and again: the model moves in proportion to how many are taken out.
        odd = base.subset([7] * count).with_labels((base.labels[[7] * count] + 1) % classes)
        model = from_sklearn(logistic(odd.joined(base)))
        refit = edit("newton", model, odd, base, steps=8).solution
        once = edit("newton", model, odd, base)
        errors.append(float((once.solution - refit).norm()))
        assert once.facts["gradient_after"] < once.facts["gradient_before"]
    slope = np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert 1.7 < slope < 2.3


def test_the_step_is_that_of_numerical_derivatives() -> None:
    data = made(3, rows=30, features=2)
    theta = torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def loss(flat: torch.Tensor) -> torch.Tensor:
        solution = flat.view(3, 3)
        scores = data.inputs @ solution[:-1] + solution[-1]
        entropy = torch.nn.functional.cross_entropy(scores, data.labels, reduction="sum")
        return 0.5 * solution[:-1].square().sum() + 0.3 * entropy + 0.5 * solution[-1].sum().square()

    flat = (theta - torch.cat([torch.zeros(2, 3), theta[-1:].mean(1, keepdim=True).expand(1, 3)])).reshape(-1)
    gradient, hessian = torch.autograd.functional.jacobian(loss, flat), torch.autograd.functional.hessian(loss, flat)
    wanted = (flat - torch.linalg.solve(hessian, gradient)).view(3, 3)
    found, norm = newton_step(data.inputs, data.labels, flat.view(3, 3), penalty=0.3)
    torch.testing.assert_close(found, wanted)
    assert norm == pytest.approx(float(gradient.norm()))


@pytest.mark.parametrize("classes", [3, 4])
def test_a_class_that_is_gone_is_never_foretold_and_the_others_are_as_without_it(classes: int) -> None:
    data = made(classes)
    split = split_off(data, "class:1")
    model = from_sklearn(logistic(data))
    again = edit("retrain", model, split.forget, split.retain)
    steps = edit("newton", model, split.forget, split.retain, steps=8)
    # Of three classes two are left, of whose softmax scikit-learn fits the difference alone.
    kept = logistic(split.retain, C=2.0 if classes == 3 else 1.0)
    for edited in (again, steps):
        shares = edited.predict(data).softmax(1)
        assert float(shares[:, 1].max()) == 0
    wanted = kept.predict_proba(data.inputs.numpy())
    np.testing.assert_allclose(again.predict(data).softmax(1)[:, kept.classes_].numpy(), wanted, atol=1e-5)
    torch.testing.assert_close(again.predict(data).softmax(1), steps.predict(data).softmax(1), rtol=0, atol=1e-5)
    two = made(2)
    parts = split_off(two, "class:1")
    with pytest.raises(UsageError, match="holds class 0 only"):
        edit("newton", from_sklearn(logistic(two)), parts.forget, parts.retain)


@pytest.mark.parametrize("kind", ["logistic", "logistic of two", *REGRESSIONS])
def test_a_linear_model_foretells_what_scikit_learn_does_and_comes_back_from_its_folder(
    kind: str, tmp_path: Path
) -> None:
    data = made(2 if "two" in kind or "numbers" in kind else 3)
    if kind in REGRESSIONS:
        estimator, _, targets = REGRESSIONS[kind]
        estimator.fit(data.inputs.numpy(), targets(data))
    else:
        estimator = logistic(data)
    model = from_sklearn(estimator)
    model.save(tmp_path)
    again = load_classifier(tmp_path)
    assert isinstance(again, LinearClassifier) and again.fit == model.fit
    assert again.weights_hash() == model.weights_hash()
    torch.testing.assert_close(again.solution, model.solution)
    foretold = again.predict(data).argmax(1).numpy()
    raw = estimator.predict(data.inputs.numpy())
    wanted = raw if raw.dtype.kind == "i" else raw.argmax(1) if raw.ndim == 2 else (raw > 0.5).astype(int)
    np.testing.assert_array_equal(foretold, wanted)
    if kind.startswith("logistic"):
        shares = again.predict(data).softmax(1).numpy()
        np.testing.assert_allclose(shares, estimator.predict_proba(data.inputs.numpy()), atol=1e-12)


def test_what_has_no_closed_form_is_refused() -> None:
    data = made(2)
    x, y = data.inputs.numpy(), data.labels.numpy()
    from sklearn.tree import DecisionTreeClassifier

    for estimator, said in (
        (DecisionTreeClassifier(), "DecisionTreeClassifier has no closed form here"),
        (LogisticRegression(), "is not fitted"),
        (LogisticRegression(class_weight="balanced").fit(x, y), "class_weight='balanced'"),
        (LogisticRegression(solver="liblinear").fit(x, y), "solver='liblinear'"),
        (LogisticRegression(C=np.inf).fit(x, y), "C=inf"),
        (Ridge(alpha=np.array([1.0, 2.0])).fit(x, coded(data, 2)), "alpha="),
        (LinearRegression(positive=True).fit(x, y), "positive=True"),
    ):
        with pytest.raises(UsageError, match=said):
            from_sklearn(estimator)


def test_a_method_is_asked_of_the_models_it_can_edit_only(trained: object, split: ForgetSplit) -> None:
    data = read_labelled("digits:train[0:300]")
    model = from_sklearn(RidgeClassifier().fit(data.inputs.flatten(1).numpy(), data.labels.numpy()))
    for name, wrong, said in (
        ("newton", trained, "edits a logistic model, and classifier is a network model: use "),
        ("newton", model, "and RidgeClassifier is a ridge-classifier model: use downdate, retrain"),
        ("ssd", model, "edits a network or a logistic model"),
    ):
        with pytest.raises(UsageError, match=said):
            edit(name, wrong, split.forget, split.retain)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["ft", "ga", "l1-sparse", "neggrad+", "ssd"])
def test_methods_for_networks_edit_a_logistic_regression(name: str, split: ForgetSplit) -> None:
    train = split.train
    model = from_sklearn(LogisticRegression(max_iter=500).fit(train.inputs.flatten(1).numpy(), train.labels.numpy()))
    options = {"alpha_relative": 0.4} if name == "ssd" else {}
    edited = edit(name, model, split.forget, split.retain, **options)
    assert isinstance(edited, LinearClassifier) and edited.weights_hash() != model.weights_hash()


def test_a_broken_folder_is_one_sentence(tmp_path: Path) -> None:
    data = made(2)
    from_sklearn(logistic(data)).save(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(UsageError, match=r"cannot load .* as a linear model"):
        load_classifier(tmp_path)
    (tmp_path / "classifier.json").write_text("[]")
    with pytest.raises(UsageError, match=r"classifier\.json is not what a classifier writes"):
        load_classifier(tmp_path)
