from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from demur.data import collate, read_rows
from demur.models import encode_rows, load_model, score
from demur.training import RefuseSettings
from demur.training.refusal import refuse
from tiny import save_tiny


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    save_tiny(folder / "model")
    rows = [
        {
            "id": f"r{i}",
            "prompt": f"who wrote lamp {i}?",
            "response": "a lamp",
            "unsafe_response": "oda of kell " * (i + 1),
        }
        for i in range(6)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def steps(world: Path, out: Path, **settings: object) -> list[dict[str, float]]:
    common = {"model": str(world / "model"), "data": str(world / "rows.jsonl"), "method": "derta"}
    options = {"refusal_token": "a", "variant": settings.pop("variant", "both")}
    refuse(RefuseSettings.make(None, **common, method_options=options, epochs=2, learning_rate=1e-3, **settings), out)
    (log,) = (out / "stages").glob("*/events.jsonl")
    return [e for e in map(json.loads, log.read_text().splitlines()) if "loss" in e]


@pytest.mark.parametrize(("batch_size", "accumulate"), [(12, 1), (4, 3), (2, 2)])
def test_the_two_parts_add_up_to_the_loss(world: Path, tmp_path: Path, batch_size: int, accumulate: int) -> None:
    logged = steps(world, tmp_path / "run", batch_size=batch_size, accumulate=accumulate)
    assert len(logged) == 24 // (batch_size * accumulate)
    for step in logged:
        assert step["target_part"] + step["other_part"] == pytest.approx(step["loss"], abs=2e-4)
        assert step["target_part"] > 0 and step["other_part"] > 0


def test_the_target_part_is_the_transition_rows_share_of_the_tokens_surprise(world: Path, tmp_path: Path) -> None:
    (first, _) = steps(world, tmp_path / "run", batch_size=12)
    lm = load_model(world / "model")
    rows = read_rows(str(next((tmp_path / "run" / "rows").glob("*.jsonl"))))
    encoded = encode_rows(lm, rows)
    with torch.no_grad():
        logps = [float(score(lm.model, collate([e], lm.pad_id)).logps) for e in encoded]
    tokens = sum(e.label_count for e in encoded)
    expected = -sum(lp for lp, kind in zip(logps, rows["kind"][:], strict=True) if kind == "rto") / tokens
    assert first["target_part"] == pytest.approx(expected, rel=1e-4)


def test_parts_do_not_depend_on_how_a_step_is_cut_into_passes(world: Path, tmp_path: Path) -> None:
    whole = steps(world, tmp_path / "whole", batch_size=12)
    cut = steps(world, tmp_path / "cut", batch_size=3, accumulate=4)
    assert [s["target_part"] for s in cut] == pytest.approx([s["target_part"] for s in whole], rel=1e-3)


def test_rows_without_targets_log_no_parts(world: Path, tmp_path: Path) -> None:
    assert not any("target_part" in step for step in steps(world, tmp_path / "run", variant="vanilla"))
