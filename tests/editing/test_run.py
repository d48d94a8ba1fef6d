from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from torch import nn
from transformers import ResNetConfig, ResNetForImageClassification, ViTConfig, ViTForImageClassification

from demur.data.labelled import split_off
from demur.data.labelled_sources import read_labelled
from demur.editing import EditSettings, edit, edit_run, editor, editors
from demur.errors import DemurError, UsageError
from demur.models import Classifier, from_sklearn, load_classifier
from demur.runs import RunFolder

DATA = "digits:train[0:200]"


def resnet(classes: int = 10, channels: int = 1) -> ResNetForImageClassification:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"embedding_size": 8, "hidden_sizes": [8, 8], "depths": [1, 1], "layer_type": "basic"}
    return ResNetForImageClassification(ResNetConfig(**sizes, num_channels=channels, num_labels=classes))


def vit(size: int = 8) -> ViTForImageClassification:
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=size, patch_size=4
    )
    config.num_channels, config.num_labels = 1, 10
    return ViTForImageClassification(config)


def own() -> Classifier:
    torch.manual_seed(0)
    return Classifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10)), head="3")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Classifiers of each kind by the name that loads them."""
    folder = tmp_path_factory.mktemp("models")
    resnet().save_pretrained(folder / "resnet")
    vit().save_pretrained(folder / "vit")
    data = read_labelled(DATA)
    x, y = data.inputs.flatten(1).double().numpy(), data.labels.numpy()
    from_sklearn(LogisticRegression(max_iter=2000).fit(x, y)).save(folder / "logistic")
    from_sklearn(RidgeClassifier().fit(x, y)).save(folder / "ridge")
    return {name: str(folder / name) for name in ("resnet", "vit", "logistic", "ridge")} | {"own": f"{__name__}:own"}


def wanted(model: str, **changed: Any) -> EditSettings:
    given = {"task": "image-classification", "data": DATA, "forget": "class:3", "method": "ft", "seed": 1}
    return EditSettings.make(model=model, **{**given, **changed})


@pytest.mark.parametrize(
    ("name", "method", "options"),
    [
        ("resnet", "ssd", {"alpha_relative": 0.4}),
        ("vit", "ft", {"epochs": 1}),
        ("own", "ga", {"epochs": 1}),
        ("logistic", "newton", {"steps": 2}),
        ("ridge", "downdate", {}),
        ("ridge", "retrain", {}),
    ],
)
def test_a_run_holds_the_edited_model_and_loads_by_itself(
    name: str, method: str, options: dict[str, Any], models: dict[str, str], tmp_path: Path
) -> None:
    settings = wanted(models[name], method=method, options=options, test="digits:test[0:150]")
    run = edit_run(settings, tmp_path / "run")
    data, test = read_labelled(DATA), read_labelled("digits:test[0:150]")
    split = split_off(data, "class:3")
    again = edit(method, load_classifier(models[name]), split.forget, split.retain, seed=1, **options)
    loaded = load_classifier(run.path)
    assert loaded.weights_hash() == again.weights_hash() == run.state["hashes"]["weights"]["after"]
    assert run.config["method"] == method and run.config["options"] == options
    assert run.state["hashes"]["data"]["data"] == data.hash() and run.state["facts"]["method"] == method
    ids = np.load(run.path / "forget.npy", allow_pickle=False)
    assert np.array_equal(ids, split.forget.ids.numpy())
    rows = run.results().set_index(["role", "metric"])["value"]
    accuracy = float((again.predict(split.retain).argmax(1) == split.retain.labels).float().mean())
    assert rows["run", "accuracy_retain"] == pytest.approx(accuracy)
    both = run.results().query("role == 'run' and metric.str.startswith('accuracy_test')")
    assert set(both["metric"]) == {"accuracy_test", "accuracy_test_of_forgotten"} and both["n"].sum() == len(test)
    assert (both["low"] <= both["value"]).all() and (both["value"] <= both["high"]).all()


def test_the_forget_file_names_the_same_rows_again(models: dict[str, str], tmp_path: Path) -> None:
    first = edit_run(wanted(models["own"], forget="random:0.1"), tmp_path / "first")
    rows = first.path / "forget.npy"
    second = edit_run(wanted(models["own"], forget=f"rows:{rows}"), tmp_path / "second")
    assert first.state["hashes"]["weights"] == second.state["hashes"]["weights"]
    assert len(np.load(rows)) == 20


def test_a_run_can_be_edited_again(models: dict[str, str], tmp_path: Path) -> None:
    first = edit_run(wanted(models["own"]), tmp_path / "first")
    second = edit_run(wanted(str(first.path), forget="class:4"), tmp_path / "second")
    assert second.state["hashes"]["weights"]["before"] == first.state["hashes"]["weights"]["after"]
    assert load_classifier(second.path).weights_hash() == second.state["hashes"]["weights"]["after"]


def test_a_finished_run_is_returned_and_another_is_refused(
    models: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    edit_run(wanted(models["own"]), out)
    monkeypatch.setattr("demur.editing.run.edit", None)
    assert edit_run(wanted(models["own"]), out).state["status"] == "complete"
    with pytest.raises(UsageError, match=r"holds a run with other settings \(seed\)"):
        edit_run(wanted(models["own"], seed=2), out)


def test_a_run_that_is_stopped_leaves_nothing(
    models: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(editors, "_components", dict(editors._components))

    @editor("stop", paper="none")
    def stop(model: Classifier, forget: object, retain: object, *, seed: int = 0) -> Classifier:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        edit_run(wanted(models["own"], method="stop"), tmp_path / "runs" / "run")
    assert not (tmp_path / "runs").exists()


def test_a_run_that_is_killed_while_it_is_written_is_done_again(
    models: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "add_results", lambda *_: sys.exit(1))
        with pytest.raises(SystemExit):
            edit_run(wanted(models["own"]), out)
    assert RunFolder.open(out).state == {} and not list(out.glob(".*partial"))
    assert edit_run(wanted(models["own"]), out).state["status"] == "complete"


def test_data_that_the_model_does_not_fit_are_refused_before_anything_runs(
    models: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("demur.editing.run.edit", None)
    resnet(classes=4).save_pretrained(tmp_path / "four")
    resnet(channels=3).save_pretrained(tmp_path / "colour")
    vit(size=16).save_pretrained(tmp_path / "large")
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "table.npz", x=rng.normal(size=(20, 5)), y=np.arange(20) % 10)
    np.savez(tmp_path / "wide.npz", x=rng.random((20, 1, 8, 9)), y=np.arange(20) % 10)
    x = rng.normal(size=(20, 5))
    from_sklearn(RidgeClassifier().fit(x, np.repeat(["no", "yes"], 10))).save(tmp_path / "named")
    np.savez(tmp_path / "two.npz", x=x, y=np.arange(20) % 2, classes=["yes", "no"])
    for model, changed, said in (
        (tmp_path / "four", {}, "four knows 4 classes, and digits:train has 10"),
        (tmp_path / "colour", {}, r"colour reads pictures of 3 × any × any .* those of digits:train are 1 × 8 × 8"),
        (tmp_path / "large", {}, r"large reads pictures of 1 × 16 × 16 .* are 1 × 8 × 8"),
        (models["own"], {"task": "tabular"}, "1 × 8 × 8, not columns: pass --task image-classification"),
        (models["own"], {"data": str(tmp_path / "table.npz")}, "pass --task tabular"),
        (models["own"], {"data": str(tmp_path / "wide.npz")}, r"cannot read rows of shape 1 × 8 × 9"),
        (models["own"], {"data": str(tmp_path / "table.npz"), "task": "tabular"}, "cannot read rows of shape 5"),
        (models["own"], {"test": str(tmp_path / "wide.npz")}, "give parts of one set"),
        (models["own"], {"options": {"seed": 3}}, "pass --seed"),
        (models["own"], {"options": {"epochs": "many"}}, "option 'epochs' of ft must be a whole number, not 'many'"),
        (models["own"], {"method": "downdate"}, "edits a ridge or a ridge-classifier or a least-squares model"),
        (
            tmp_path / "named",
            {"data": str(tmp_path / "two.npz"), "task": "tabular", "forget": "random:3", "method": "downdate"},
            "was fitted on the classes no, yes, and those of .* are yes, no",
        ),
    ):
        with pytest.raises(UsageError, match=said):
            edit_run(wanted(str(model), **changed), tmp_path / "runs" / "run")
    assert not (tmp_path / "runs").exists()


def test_facts_that_no_file_can_hold_are_put_in_words(
    models: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(editors, "_components", dict(editors._components))

    @editor("tell", paper="none")
    def tell(model: Classifier, forget: object, retain: object, *, seed: int = 0) -> Classifier:
        return model.copied(nan=float("nan"), few=torch.arange(2), many=torch.zeros(200), one=np.float64(0.5))

    facts = edit_run(wanted(models["own"], method="tell"), tmp_path / "run").state["facts"]
    assert facts["nan"] == "nan" and facts["few"] == [0, 1] and facts["one"] == 0.5
    assert facts["many"] == "array of shape (200,)"


def test_a_watcher_hears_of_every_stage_and_epoch(models: dict[str, str], tmp_path: Path) -> None:
    heard: list[tuple[float, float, str]] = []
    settings = wanted(models["own"], options={"epochs": 2})
    edit_run(settings, tmp_path / "run", lambda done, total, note="": heard.append((done, total, note)))
    assert heard == [(0, 0, "reading"), (0, 0, "ft"), (1, 2, "ft, epochs"), (2, 2, "ft, epochs"), (0, 0, "measuring")]


def test_a_model_that_breaks_leaves_nothing(models: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(DemurError, match="broke the model"):
        edit_run(wanted(models["own"], method="ga", options={"learning_rate": 1e9}), tmp_path / "run")
    assert not (tmp_path / "run").exists()
