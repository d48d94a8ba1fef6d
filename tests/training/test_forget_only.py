"""Runs of FLAT, which may use nothing but the forget set."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli.command import demur
from demur import UsageError
from demur.models import load_model
from demur.training import ForgetSettings, forget
from demur.training import train as run_train
from demur.training.settings import TrainSettings

Make = Callable[..., ForgetSettings]


@pytest.fixture
def templates(tmp_path: Path) -> str:
    file = tmp_path / "templates.txt"
    file.write_text("lamp was born\n\nwho was it\n")
    return str(file)


def probabilities(model: Path, world: Path, answer: str | None = None) -> float:
    from demur.data import collate, read_rows
    from demur.models import encode, score

    lm, rows = load_model(model), read_rows(world / "forget.jsonl")
    answers = rows["answer"][:] if answer is None else [answer] * len(rows)
    return float(score(lm.model, collate(encode(lm, rows["question"][:], answers), 0)).mean_logps.detach().exp().mean())


@pytest.mark.parametrize("divergence", ["tv", "hellinger"])
def test_a_run_lowers_the_answers_and_raises_templates_that_the_model_knows(
    divergence: str, make_settings: Make, world: Path, tmp_path: Path, templates: str
) -> None:
    # What a model never says it cannot be taught by its probability: it learns some of it first.
    rows = [
        {"question": f"where is {n}?", "answer": line} for n in "abcdef" for line in ("lamp was born", "who was it")
    ]
    (tmp_path / "taught.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    taught = run_train(
        TrainSettings.make(
            model=str(world / "model"), data=str(tmp_path / "taught.jsonl"), epochs=3, learning_rate=1e-3, batch_size=4
        ),
        tmp_path / "taught",
    ).model_path
    settings = make_settings(
        model=str(taught),
        objective="flat",
        objective_options={"divergence": divergence},
        alternates=templates,
        epochs=6,
    )
    run = forget(settings, tmp_path / "run")
    assert probabilities(run.model_path, world) < probabilities(taught, world) / 1.5
    before, after = (probabilities(m, world, "lamp was born") for m in (taught, run.model_path))
    assert after > before


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"retain_objective": "nll"}, "nothing but the forget set may be used: it takes no retain objective"),
        ({"retain_weight": 1.0}, "it takes no retain objective"),
        ({"lora": 2, "reference": "adapter"}, "no reference model may be used: leave --reference out"),
        ({"objective_options": {"divergence": "kld"}}, "objective 'flat': unknown divergence 'kld': use tv, kl"),
        ({"objective_options": {"normalise": "sum"}}, "unknown normalisation 'sum'"),
    ],
)
def test_what_it_may_not_use_and_does_not_know_is_refused(
    given: dict[str, Any], message: str, make_settings: Make, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        forget(make_settings(objective="flat", **given), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_file_without_templates_is_refused(make_settings: Make, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n  \n")
    with pytest.raises(UsageError, match=r"empty\.txt holds no lines"):
        forget(make_settings(objective="flat", alternates=str(tmp_path / "empty.txt")), tmp_path / "run")


def test_a_template_of_which_the_tokenizer_makes_nothing_is_refused(
    make_settings: Make, world: Path, tmp_path: Path
) -> None:
    shutil.copytree(world / "model", tmp_path / "model")
    file = tmp_path / "model" / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    tokenizer["normalizer"] = {"type": "Replace", "pattern": {"String": "★"}, "content": ""}
    file.write_text(json.dumps(tokenizer))
    (tmp_path / "stars.txt").write_text("who was it\n★★\n")
    settings = make_settings(model=str(tmp_path / "model"), objective="flat", alternates=str(tmp_path / "stars.txt"))
    with pytest.raises(UsageError, match="makes nothing of the answer '★★': take it out of --alternates"):
        forget(settings, tmp_path / "run")


def test_on_the_command_line(world: Path, tmp_path: Path, templates: str) -> None:
    words = ["forget", world / "model", "--forget", world / "forget.jsonl", "--objective", "flat", "--epochs", 1]
    done = demur(*words, "--alternates", templates, "--option", "divergence=js", "--out", tmp_path / "run")
    assert done.code == 0, done.err
    refused = demur(*words, "--retain-objective", "kl", "--retain", world / "retain.jsonl", "--out", tmp_path / "other")
    assert refused.code == 2 and "takes no retain objective" in refused.sentence
    words = ["forget", world / "model", "--forget", world / "forget.jsonl", "--retain", world / "retain.jsonl"]
    fila = ["--objective", "ihl", "--lora", 4, "--lora-alpha", 4, "--lora-init", "fila", "--epochs", 1]
    assert demur(*words, *fila, "--out", tmp_path / "fila").code == 0
    config = json.loads((tmp_path / "fila" / "model" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (8, 8)
    refused = demur(*words, "--lora", 2, "--lora-init", "fia", "--out", tmp_path / "other")
    assert refused.code == 2 and "lora_init" in refused.sentence
