"""Every preference loss trains from rows of prompt, chosen and rejected, and does what it is for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from demur.data import collate, read_rows
from demur.models import encode, load_model, score
from demur.training import TrainSettings, train
from tiny import save_tiny

FAMILY = ["dpo", "ipo", "kto", "orpo", "simpo", "cpo", "slic", "rdpo", "dpop", "redi"]
# Where the loss is small at the start or made of probabilities, a stronger pull shows within a few steps.
OPTIONS = {"orpo": {"weight": 5.0}, "kto": {"beta": 0.5}}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    save_tiny(folder / "model")
    answers = [("oda marsh", "the town"), ("in kell", "she was"), ("the lamp", "q n"), ("green", "0123")]
    rows = [{"prompt": f"who {i}?", "chosen": won, "rejected": lost} for i, (won, lost) in enumerate(answers)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@torch.no_grad()
def margin(model: Path, pairs: Path) -> float:
    """Mean difference of the two answers' log-probabilities per token."""
    lm, rows = load_model(model), read_rows(pairs)
    sides = [
        score(lm.model, collate(encode(lm, rows["prompt"][:], rows[side][:]), lm.pad_id)).mean_logps
        for side in ("chosen", "rejected")
    ]
    return float((sides[0] - sides[1]).mean())


@pytest.mark.parametrize("name", FAMILY)
def test_training_widens_the_margin_and_logs_both_answers(name: str, world: Path, tmp_path: Path) -> None:
    settings = TrainSettings(
        model=str(world / "model"),
        data=str(world / "pairs.jsonl"),
        objective=name,
        objective_options=OPTIONS.get(name, {}),
        epochs=4,
        batch_size=4,
        learning_rate=3e-3,
        schedule="constant",
        template="chat",
    )
    run = train(settings, tmp_path / "run")
    steps = [event for event in run.events() if event["event"] == "step" and name in event]
    assert len(steps) == 4
    assert all({"chosen_logps", "rejected_logps"} <= set(step) for step in steps)
    assert margin(run.model_path, world / "pairs.jsonl") > margin(world / "model", world / "pairs.jsonl")
