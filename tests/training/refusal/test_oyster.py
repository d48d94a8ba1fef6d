from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.command import demur
from demur.data import dataset_from_rows
from demur.errors import UsageError
from demur.runs import RunFolder
from demur.training.refusal import Lesson, plan_stages
from tiny import save_tiny, tiny_lm

PAIRS = [
    {"prompt": f"who is {name}?", "chosen": "ask in the town", "rejected": "sorry"} for name in ("oda", "marsh", "kell")
]


def test_optimised_responses_are_imitated_and_then_preferred() -> None:
    first, second = plan_stages(
        Lesson(dataset_from_rows(PAIRS), "pairs.jsonl", 0, tiny_lm), "oyster", {"weight": 0.3, "sft_epochs": 2}
    )
    assert (first.objective, first.rows["response"][:], first.settings) == (
        "sft",
        ["ask in the town"] * 3,
        {"epochs": 2},
    )
    assert (second.objective, second.options) == ("orpo", {"weight": 0.3})
    assert second.rows["rejected"][:] == ["sorry"] * 3


def test_rows_that_make_no_pairs_are_refused() -> None:
    lesson = Lesson(dataset_from_rows([{"prompt": "a", "response": "b"}]), "rows.jsonl", 0, tiny_lm)
    with pytest.raises(UsageError, match="chosen and rejected"):
        plan_stages(lesson, "oyster")


def test_the_command_trains_and_ends_with_a_model(tmp_path: Path) -> None:
    rows = tmp_path / "pairs.jsonl"
    rows.write_text("\n".join(json.dumps(row) for row in PAIRS))
    out = demur(
        *("refuse", save_tiny(tmp_path / "model"), "--data", rows, "--method", "oyster", "--option", "weight=0.2"),
        *("--epochs", "1", "--learning-rate", "1e-3", "--out", tmp_path / "run"),
    )
    assert out.code == 0, out.err
    assert RunFolder.open(tmp_path / "run").model_path.is_dir()
