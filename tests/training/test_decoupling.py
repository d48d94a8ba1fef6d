"""Forgetting with pictures: decoupled rows go with their forget rows, and runs resume and load."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from demur.data import Encoded, read_rows
from demur.data.rows import image_paths, question_answer
from demur.errors import RowError, UsageError
from demur.models import load_model
from demur.training import ForgetSettings, forget
from demur.training.decoupling import pair_decoupled
from demur.training.plan import paired_plan
from tiny import save_tiny
from tiny_vision import tiny_vision_folder

SCENES = "lab:scenes-digits"
Make = Callable[..., ForgetSettings]


@pytest.fixture
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Settings of a short run on a few scenes."""
    model = tiny_vision_folder(tmp_path_factory.getbasetemp())

    def settings(**given: Any) -> ForgetSettings:
        rows = {
            "forget": f"{SCENES}:forget[0:6]",
            "retain": f"{SCENES}:retain[0:6]",
            "decoupled": f"{SCENES}:decoupled",
        }
        short = {"epochs": 1, "batch_size": 2, "learning_rate": 1e-2, "objective": "ga", "device": "cpu"}
        return ForgetSettings.make(**{"model": str(model), **rows, **short, **given})

    return settings


def state(folder: Path) -> dict[str, torch.Tensor]:
    (file,) = (folder / "model").glob("*.safetensors")
    return load_file(file)


@pytest.mark.parametrize("anchor", ["forget", "retain"])
def test_decoupled_rows_share_the_index_of_their_forget_rows(anchor: str) -> None:
    tables = {role: [Encoded([1, 2], 1, f"{role}{i}") for i in range(n)] for role, n in (("forget", 5), ("retain", 7))}
    partners = {"decoupled": [Encoded([1, 2], 1, f"forget{i}") for i in range(5)]}
    drawn = {role: table for role, table in tables.items() if role != anchor}
    bare, plan = (
        paired_plan({anchor: tables[anchor]}, drawn, epochs=3, seed=1, paired=paired) for paired in ({}, partners)
    )
    assert all((plan.order[role] == bare.order[role]).all() for role in ("forget", "retain"))
    for epoch in range(3):
        for f, d in zip(plan.order["forget"][epoch], plan.order["decoupled"][epoch], strict=True):
            assert plan.tables["forget"][f].id == plan.tables["decoupled"][d].id
    with pytest.raises(UsageError, match="4 decoupled rows cannot go with 5 forget rows"):
        paired_plan({anchor: tables[anchor]}, drawn, epochs=1, seed=1, paired={"decoupled": partners["decoupled"][:4]})


def test_without_weight_a_run_ends_with_the_base_method_s_bits(make: Make, tmp_path: Path) -> None:
    bare = forget(make(objective="npo", retain_objective="kl", decoupled=None), tmp_path / "bare")
    unweighted = forget(make(objective="npo", retain_objective="kl", decouple_weight=0.0), tmp_path / "zero")
    weighted = forget(make(objective="npo", retain_objective="kl"), tmp_path / "one")
    first, second, third = (state(run.path) for run in (bare, unweighted, weighted))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], third[name]) for name in first)


@pytest.mark.parametrize(
    "options",
    [
        {"objective": "graddiff"},
        {"objective": "idk"},
        {"objective": "ga", "retain_objective": "kl", "lora": 2, "reference": "adapter"},
        {"objective": "graddiff", "lora": 2, "lora_targets": "q_proj,linear_1"},
    ],
    ids=str,
)
def test_every_composition_trains_the_language_model_and_never_the_tower(
    options: dict[str, Any], make: Make, tmp_path: Path
) -> None:
    settings = make(**options)
    run = forget(settings, tmp_path / "run")
    before, after = load_model(settings.model), load_model(run.model_path)
    assert after.images is not None
    adapted = {name for name in after.model.state_dict() if "lora_A" in name}
    assert not any("vision_tower" in name for name in adapted)
    assert any("projector" in name for name in adapted) == (options.get("lora_targets") is not None)
    merged = after.model.merge_and_unload() if adapted else after.model
    changed = {n for n, p in merged.state_dict().items() if not torch.equal(p, before.model.state_dict()[n])}
    assert changed and not any("vision_tower" in name for name in changed)
    assert set(run.state["hashes"]["data"]) == {"forget", "retain", "decoupled"}


def test_a_killed_run_with_pictures_ends_as_one_that_was_never_stopped(make: Make, tmp_path: Path) -> None:
    settings = make(objective="graddiff", epochs=2, save_steps=2)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(settings.model_dump()))
    command = [sys.executable, str(Path(__file__).parent / "killed_run.py"), str(recipe), str(tmp_path / "killed"), "3"]
    assert subprocess.run(command, capture_output=True).returncode == -signal.SIGKILL
    resumed, whole = forget(settings, tmp_path / "killed"), forget(settings, tmp_path / "whole")
    first, second = state(resumed.path), state(whole.path)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(event["event"] == "resumed" for event in resumed.events())


def write(file: Path, rows: list[dict[str, Any]]) -> str:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def test_partners_are_found_by_id_whatever_their_order(tmp_path: Path) -> None:
    forget_rows, partners = read_rows(f"{SCENES}:forget[0:5]"), read_rows(f"{SCENES}:decoupled")
    turned = partners.select(range(9, -1, -1))
    paired = pair_decoupled(forget_rows, turned, "x")
    assert paired["id"][:] == forget_rows["id"][:] and paired["question"][:] == forget_rows["question"][:]
    assert image_paths(question_answer(paired)[0][0]) == [partners[0]["image_path"]]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"id": "elsewhere"}, "column 'id': no decoupled row has the id"),
        ({"question": "and the weather?"}, "line 2, column 'question': row .* asks something else"),
        ({"image_path": None}, "line 2, column 'image_path': row .* has no picture"),
    ],
    ids=["no partner", "another question", "no picture"],
)
def test_a_decoupled_row_that_does_not_fit_is_named(
    change: dict[str, Any], words: str, make: Make, tmp_path: Path
) -> None:
    rows = read_rows(f"{SCENES}:decoupled[0:6]").to_list()
    rows[1] |= change
    with pytest.raises(RowError, match=words):
        forget(make(decoupled=write(tmp_path / "decoupled.jsonl", rows)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_cannot_be_decoupled_is_refused(make: Make, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="pass --decoupled"):
        forget(make(decoupled=None, decouple_weight=0.5), tmp_path / "run")
    with pytest.raises(UsageError, match="works on decoupled rows"):
        forget(make(objective="decoupled", decoupled=None), tmp_path / "run")
    blind = save_tiny(tmp_path / "blind")
    with pytest.raises(UsageError, match="has no image tower: pass a vision-language model"):
        forget(make(model=str(blind)), tmp_path / "run")
    assert not (tmp_path / "run").exists()
