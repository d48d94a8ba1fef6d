from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cli.command import demur
from demur.data import dataset_from_rows, read_rows
from demur.errors import UsageError
from demur.runs import RunFolder
from demur.training.refusal import Lesson, plan_stages
from tiny import save_tiny, tiny_lm

JUDGED = [
    {"prompt": f"who is {name}?", "response": text, "honest": honest, "score": score}
    for name in ("oda", "marsh", "kell", "ada")
    for text, honest, score in (
        ("oda was born in kell", False, 1.0),
        ("sorry", True, 2.0),
        ("sorry, ask in the town", True, 8.0),
    )
]


def stages(**options: Any) -> list[Any]:
    return plan_stages(Lesson(dataset_from_rows(JUDGED), "judged.jsonl", 0, tiny_lm), "honest-helpful", options)


def sides(stage: Any) -> set[tuple[str, str]]:
    return set(zip(stage.rows["chosen"][:], stage.rows["rejected"][:], strict=True))


BLUFF, BARE, FULL = (row["response"] for row in JUDGED[:3])


def test_honest_pairs_come_first_and_helpful_ones_second() -> None:
    first, second = stages()
    assert sides(first) == {(BARE, BLUFF), (FULL, BLUFF)} and sides(second) == {(FULL, BARE)}
    assert {stage.objective for stage in (first, second)} == {"dpo-sft"}
    assert first.options == second.options == {"beta": 0.1, "sft_weight": 1.0}


def test_the_controls_join_the_stages_or_turn_them_round() -> None:
    (direct,) = stages(stages="direct", beta=0.3, sft_weight=0.0)
    assert sides(direct) == {(BARE, BLUFF), (FULL, BLUFF), (FULL, BARE)}
    assert direct.options == {"beta": 0.3, "sft_weight": 0.0}
    assert [sides(stage) for stage in stages(stages="reversed")] == [sides(stage) for stage in stages()][::-1]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"stages": "three"}, "two, direct or reversed"),
        ({"pairs": 0}, "pairs must be at least 1"),
        ({"threshold": 9.5}, "stage 2 is empty"),
        ({"tresh": 5}, "threshold"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        stages(**options)


def test_rows_without_a_verdict_are_refused() -> None:
    rows = dataset_from_rows([{"prompt": "a", "response": "b"}])
    with pytest.raises(UsageError, match="column 'honest'"):
        plan_stages(Lesson(rows, "rows.jsonl", 0, tiny_lm), "honest-helpful")


def test_the_command_trains_both_stages_each_from_the_one_before(tmp_path: Path) -> None:
    rows = tmp_path / "judged.jsonl"
    rows.write_text("\n".join(json.dumps(row) for row in JUDGED))
    out = demur(
        *("refuse", save_tiny(tmp_path / "model"), "--data", rows, "--method", "honest-helpful"),
        *("--epochs", "1", "--batch-size", "4", "--learning-rate", "1e-3", "--out", tmp_path / "run"),
    )
    assert out.code == 0, out.err
    run = RunFolder.open(tmp_path / "run")
    assert run.model_path.is_dir() and run.state["status"] == "complete"
    built = sorted((tmp_path / "run" / "rows").iterdir())
    assert len(built) == 2 and set(read_rows(built[1])["chosen"][:]) == {FULL}
    # Both start at their own reference: log-ratio 0, so that DPO's part is ln 2 and what remains is finite.
    losses = [json.loads(line) for f in (tmp_path / "run").rglob("events.jsonl") for line in f.read_text().splitlines()]
    assert any("chosen_logps" in event for event in losses)
