"""`demur forget --task`: from a command to an edited classifier."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from sklearn.linear_model import LogisticRegression

from cli.command import Outcome, demur
from demur.data.labelled_sources import read_labelled
from demur.models import from_sklearn, load_classifier
from demur.runs import RunFolder

QUICK = "lab:digits-resnet@epochs=1"
WORDS = ["--task", "image-classification", "--data", "digits:train[0:200]", "--forget", "class:3", "--seed", 1]


def forget(out: Path, *more: Any, model: str = QUICK) -> Outcome:
    return demur("forget", model, *WORDS, "--out", out, *more)


def test_one_command_makes_a_run_and_says_what_to_do_next(lab_cache: Path, tmp_path: Path) -> None:
    out = tmp_path / "ssd"
    words = ["--method", "ssd", "--option", "alpha_relative=0.4", "--test", "digits:test"]
    done = forget(out, *words)
    assert done.code == 0, done.err
    for title in ("rows to forget", "rows to keep", "test rows", "test rows of the forgotten classes"):
        assert title in done.out
    assert f"demur audit {out} --suite classifier-unlearning --reference GOLD" in done.out
    config = yaml.safe_load((out / "config.yaml").read_text())
    assert config["options"] == {"alpha_relative": 0.4} and config["seed"] == 1 and config["target"] is None
    assert forget(out, *words).out == done.out
    other = forget(out, "--method", "ssd", "--test", "digits:test")
    assert other.code == 2 and "other settings (options): choose another --out" in other.sentence


def test_retraining_makes_the_reference_and_a_recipe_repeats_a_run(lab_cache: Path, tmp_path: Path) -> None:
    gold = tmp_path / "gold"
    done = forget(gold, "--method", "retrain", "--option", "epochs=1")
    assert done.code == 0, done.err
    assert f"demur audit RUN --suite classifier-unlearning --reference {gold}" in done.out
    again = demur("forget", "--recipe", gold / "config.yaml", "--seed", 2, "--out", tmp_path / "again")
    assert again.code == 0, again.err
    hashes = [RunFolder.open(out).state["hashes"] for out in (gold, tmp_path / "again")]
    assert hashes[0]["data"] == hashes[1]["data"]
    assert hashes[0]["weights"]["before"] == hashes[1]["weights"]["before"]
    assert hashes[0]["weights"]["after"] != hashes[1]["weights"]["after"]


def test_a_linear_model_on_a_table_forgets_in_closed_form(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 3))
    colours = np.where(x @ [1.0, -2.0, 0.5] + rng.normal(size=120) > 0, "red", "blue")
    lines = ["a,b,c,colour", *(f"{a:.3f},{b:.3f},{c:.3f},{name}" for (a, b, c), name in zip(x, colours, strict=True))]
    table = tmp_path / "table.csv"
    table.write_text("\n".join(lines) + "\n")
    data = read_labelled(f"{table}[0:100]", "colour")
    fit = LogisticRegression(tol=1e-10).fit(data.inputs.double().numpy(), np.array(data.classes)[data.labels])
    from_sklearn(fit).save(tmp_path / "model")
    words = ["--task", "tabular", "--data", f"{table}[0:100]", "--test", f"{table}[100:]", "--target", "colour"]
    done = demur(
        *["forget", tmp_path / "model", *words, "--forget", "random:10", "--out", tmp_path / "run"],
        *["--method", "newton", "--option", "steps=3"],
    )
    assert done.code == 0, done.err
    retained = np.setdiff1d(np.arange(100), np.load(tmp_path / "run" / "forget.npy"))
    refit = LogisticRegression(tol=1e-10).fit(data.inputs.double().numpy()[retained], data.labels.numpy()[retained])
    shares = load_classifier(tmp_path / "run").predict(data).softmax(1)
    np.testing.assert_allclose(shares, refit.predict_proba(data.inputs.double().numpy()), atol=1e-5)
    lost = demur("forget", tmp_path / "model", *words[:4], "--forget", "random:10", "--method", "ft", "--out", "x")
    assert lost.code == 2 and "pass --target COLUMN" in lost.sentence


def test_a_module_of_ones_own_is_three_lines_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_net.py").write_text(
        "from torch import nn\nfrom demur.models import Classifier\n"
        "def net():\n    return Classifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), head='1')\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for model, out in (("my_net:net", "run"), ("run", "again")):
        done = forget(Path(out), "--method", "ft", model=model)
        assert done.code == 0, done.err
    assert load_classifier(tmp_path / "again").name == "my_net:net"
    del sys.modules["my_net"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--method", "ft", "--objective", "npo"], "--objective is for --task text, not image-classification: say"),
        (["--method", "ft", "--epochs", 1], "--epochs is for --task text, not image-classification: a method's own"),
        (["--method", "ft", "--no-trajectory"], "--no-trajectory is for --task text"),
        (["--method", "ft", "--no-bf16"], "--bf16 is for --task text"),
        ([], "pass --method, or a recipe that has it"),
        (["--method", "sd"], "unknown editing method 'sd': did you mean ssd?"),
        (["--method", "ft", "--option", "epoch=1"], "ft has no option 'epoch': did you mean epochs"),
        (["--method", "ft", "--option", "epochs=many"], "option 'epochs' of ft must be a whole number"),
        (["--method", "ft", "--task", "images"], "unknown --task 'images': use text, image-classification or tabular"),
        (["--method", "ft", "--task", "tabular"], "1 × 8 × 8, not columns: pass --task image-classification"),
        (["--method", "ft", "--forget", "class:12"], "digits:train has no class '12'"),
        (["--method", "ft", "--data", "cifar:train"], "no labelled data at 'cifar:train'"),
        (["--method", "newton"], "edits a logistic model"),
        (
            ["--task", "text", "--data", "digits:train"],
            "--data is for classifiers: pass --task image-classification or tabular",
        ),
    ],
)
def test_what_cannot_be_done_as_asked_is_one_sentence(
    words: list[Any], said: str, lab_cache: Path, tmp_path: Path
) -> None:
    done = forget(tmp_path / "runs" / "run", *words)
    assert (done.code, done.out) == (2, "")
    assert said in done.sentence
    assert not (tmp_path / "runs").exists()


def test_a_part_of_labelled_data_is_no_text_to_forget(tmp_path: Path) -> None:
    done = demur("forget", QUICK, "--forget", "class:3", "--out", tmp_path / "run")
    assert done.code == 2 and "--forget class:3 is for classifiers: pass --task image-classification" in done.sentence


def test_the_methods_are_listed_with_their_options() -> None:
    listed = demur("forget", "--list")
    assert listed.code == 0
    assert "ssd (arXiv 2308.07707): Selective synaptic dampening" in listed.out
    assert "for logistic models; options: steps=1" in listed.out


def test_the_help_keeps_both_kinds_of_model_apart() -> None:
    shown = demur("forget", "--help").out
    panels = ("Options", "Classifiers", "Language models", "Training of language models")
    places = [shown.index(f"─ {panel} ─") for panel in panels]
    assert places == sorted(places)
    assert places[1] < shown.index("│ --method") < places[2] < shown.index("│ --objective") < places[3]
