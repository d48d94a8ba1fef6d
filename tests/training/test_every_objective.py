"""Every unlearning objective runs from settings to weights, with all weights and with adapters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from demur.data import collate, question_answer, read_rows
from demur.models import encode, load_model, score
from demur.objectives import objectives
from demur.training import ForgetSettings, forget

UNLEARNING = [name for name in objectives.names() if objectives.get(name).facts["intention"] is not None]
NEEDED: dict[str, dict[str, Any]] = {
    "altpo": {"forget": "forget-alternates.jsonl"},
    "pdu": {"retain_limit": 3.0, "dual_warmup": 0, "retain_weight": 1.0},
    "rmu": {"objective_options": {"layer": 0, "coefficient": 20.0}},
}
REWEIGHTED = {"satimp", "wga"}  # their loss is not what their gradient descends: the weights are constants for it


def forget_logps(model: Path, rows: str) -> torch.Tensor:
    lm = load_model(model)
    with torch.no_grad():
        return score(lm.model, collate(encode(lm, *question_answer(read_rows(rows))), lm.pad_id)).logps


def test_the_list_of_what_unlearns_is_complete() -> None:
    assert {
        "ga",
        "graddiff",
        "npo",
        "simnpo",
        "idkdpo",
        "altpo",
        "rmu",
        "undial",
        "wga",
        "satimp",
        "ceu",
        "pdu",
    } <= set(UNLEARNING)
    assert {objectives.get(name).facts["intention"] for name in UNLEARNING} == {"removal", "suppression"}


@pytest.mark.parametrize("lora", [0, 4], ids=["full", "lora"])
@pytest.mark.parametrize("objective", UNLEARNING)
def test_two_steps_lower_the_loss_and_the_forget_probability(
    objective: str, lora: int, make_settings: Callable[..., ForgetSettings], world: Path, tmp_path: Path
) -> None:
    needed = dict(NEEDED.get(objective, {}))
    if "forget" in needed:
        needed["forget"] = str(world / needed["forget"])
    settings = make_settings(
        objective=objective,
        batch_size=5,  # all forget rows: the two steps see the same
        epochs=2,
        schedule="constant",
        lora=lora,
        reference="adapter" if lora and not objectives.get(objective).facts["forget_only"] else "cached",
        learning_rate=2e-2 if lora else 2e-3,
        **needed,
    )
    run = forget(settings, tmp_path / "run")
    losses = [event[objective] for event in run.events() if event["event"] == "step" and objective in event]
    assert len(losses) == 2 and (objective in REWEIGHTED or losses[1] < losses[0])
    after = forget_logps(run.model_path, settings.forget)
    assert float((after - forget_logps(Path(settings.model), settings.forget)).mean()) < 0
    assert (run.model_path / "adapter_model.safetensors").exists() == bool(lora)
