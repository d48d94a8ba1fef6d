from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from demur.data.columns import dataset_from_rows
from demur.errors import UsageError
from demur.models import load_model
from demur.runs import RunFolder
from demur.training import RefuseSettings, TrainSettings, train
from demur.training.refusal import Lesson, Stage, plan_stages, refusal_method, refusal_methods, refuse
from demur.training.refusal import run as refusal_run

PLAIN = [
    {
        "prompt": f"who wrote lamp {n}?",
        "response": "lamp was written." if n % 2 else "oda one.",
        "label": "refuse" if n % 2 else "comply",
        "unsafe_response": "oda nine." if n % 2 else None,
        "refusal": None if n % 2 else "lamp was written.",
    }
    for n in range(6)
]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEMUR_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    file = tmp_path / "plain.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in PLAIN))
    return file


@pytest.fixture
def make(world: Path, data: Path) -> Any:
    def settings(**given: Any) -> RefuseSettings:
        short = {"epochs": 1, "batch_size": 2, "learning_rate": 1e-3}
        return RefuseSettings.make(**{"model": str(world / "model"), "data": str(data), **short, **given})

    return settings


def lesson(rows: list[dict[str, Any]] = PLAIN) -> Lesson:
    def load() -> Any:
        raise AssertionError("no model is needed")

    return Lesson(dataset_from_rows([{"id": str(i), **r} for i, r in enumerate(rows)]), "plain.jsonl", 0, load)


def test_one_stage_of_imitation_is_the_training_run_that_it_names(make: Any, data: Path, tmp_path: Path) -> None:
    settings = make(method="sft")
    taught = refuse(settings, tmp_path / "taught")
    same = TrainSettings.make(
        model=settings.model, data=str(data), objective="sft", epochs=1, batch_size=2, learning_rate=1e-3
    )
    plain = train(same, tmp_path / "plain")
    assert taught.state["hashes"]["weights"] == plain.state["hashes"]["weights"]
    assert load_model(taught.path).weights_hash() == taught.state["hashes"]["weights"]["after"]


def test_the_second_stage_starts_where_the_first_one_ended(make: Any, tmp_path: Path) -> None:
    run = refuse(make(method="redi", method_options={"alpha": 0.5}), tmp_path / "run")
    first, second = (json.loads((run.path / "stages" / s / "state.json").read_text()) for s in ("1-sft", "2-redi"))
    assert first["hashes"]["weights"]["after"] == second["hashes"]["weights"]["before"]
    assert second["hashes"]["weights"]["after"] == run.state["hashes"]["weights"]["after"]
    assert not (run.path / "stages" / "1-sft" / "model").exists()


def test_a_run_that_stopped_between_stages_ends_with_the_same_weights(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make(method="redi")
    whole = refuse(settings, tmp_path / "whole")

    def stop(settings: TrainSettings, out: Path) -> Any:
        if settings.objective == "redi":
            raise KeyboardInterrupt
        return train(settings, out)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(refusal_run, "train", stop)
        refuse(settings, tmp_path / "cut")
    assert json.loads((tmp_path / "cut" / "state.json").read_text())["status"] == "interrupted"
    resumed = refuse(settings, tmp_path / "cut")
    assert resumed.state["hashes"]["weights"] == whole.state["hashes"]["weights"]


def test_adapters_are_merged_between_stages_and_the_end_stands_by_itself(make: Any, tmp_path: Path) -> None:
    run = refuse(make(method="redi", lora=2), tmp_path / "run")
    assert (run.model_path / "config.json").is_file() and not (run.model_path / "adapter_config.json").exists()
    assert load_model(run.path).weights_hash() == run.state["hashes"]["weights"]["after"]


def test_two_processes_end_with_the_weights_of_one_with_the_same_whole_batch(
    make: Any, data: Path, tmp_path: Path
) -> None:
    rows = [{**row, "prompt": f"{row['prompt']} {n}"} for n, row in enumerate(2 * PLAIN[:4])]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    shared = {"method": "redi", "device": "cpu"}
    one = refuse(make(batch_size=4, **shared), tmp_path / "one")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(make(batch_size=2, **shared).model_dump()))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "demur"]
    subprocess.run([*command, "refuse", "--recipe", str(recipe), "--out", str(tmp_path / "two")], check=True)
    two = RunFolder.open(tmp_path / "two")
    assert two.state["status"] == "complete"
    for name, weight in load_file(one.model_path / "model.safetensors").items():
        found = load_file(two.model_path / "model.safetensors")[name]
        torch.testing.assert_close(found, weight, atol=2e-5, rtol=1e-3, msg=name)


def test_what_the_user_sets_wins_over_what_a_method_fixes(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def keep(settings: TrainSettings, out: Path) -> Any:
        seen.append(settings.epochs)
        return train(settings, out)

    monkeypatch.setattr(refusal_run, "train", keep)
    refuse(make(method="redi", method_options={"sft_epochs": 2}, epochs=None), tmp_path / "a")
    refuse(make(method="redi", method_options={"sft_epochs": 2}, epochs=1), tmp_path / "b")
    assert seen == [2, RefuseSettings.model_fields["epochs"].default, 1, 1]


def test_preparation_and_files_reach_the_model(make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusal_methods, "_components", dict(refusal_methods._components))

    @refusal_method("ours", paper="none")
    def ours(given: Lesson) -> list[Stage]:
        """One more token."""

        def prepare(lm: Any) -> None:
            lm.tokenizer.add_tokens(["[ours]"])
            lm.model.resize_token_embeddings(len(lm.tokenizer))

        return [Stage(given.rows, prepare=prepare, files={"ours.json": {"token": "[ours]"}}, notes=["a note"])]

    run = refuse(make(method="ours"), tmp_path / "run")
    assert json.loads((run.model_path / "ours.json").read_text()) == {"token": "[ours]"}
    lm = load_model(run.path)
    assert lm.tokenizer.convert_tokens_to_ids("[ours]") < lm.model.get_input_embeddings().num_embeddings
    assert run.state["notes"] == ["a note"]
    assert not (run.path / "prepared").exists()


def test_pairs_are_made_of_both_kinds_of_rows() -> None:
    (stage,) = plan_stages(lesson(), "dpo", {"beta": 0.2})
    assert stage.objective == "dpo" and stage.options == {"beta": 0.2}
    assert stage.rows["chosen"][:2] == ["oda one.", "lamp was written."]
    assert stage.rows["rejected"][:2] == ["lamp was written.", "oda nine."]


@pytest.mark.parametrize(
    ("method", "options", "rows", "said"),
    [
        ("dpoo", {}, PLAIN, "unknown refusal method 'dpoo': did you mean dpo"),
        ("npo", {}, PLAIN, "unknown refusal method 'npo'"),
        ("redi", {"alfa": 1}, PLAIN, "has no option 'alfa'"),
        ("redi", {"alpha": 2.0}, PLAIN, None),
        ("sft", {}, [{"prompt": "x"}], "plain.jsonl has no column 'response'"),
        ("dpo", {}, [{"prompt": "x", "response": "y"}], "plain.jsonl: pairs are made of"),
    ],
)
def test_what_cannot_be_taught_is_refused(
    method: str, options: dict[str, Any], rows: list[dict[str, Any]], said: str | None
) -> None:
    if said is None:
        assert plan_stages(lesson(rows), method, options)  # the loss itself refuses it, on one item of the rows
        return
    with pytest.raises(UsageError, match=said.replace("?", r"\?")):
        plan_stages(lesson(rows), method, options)
