from __future__ import annotations

import functools
import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from demur import UsageError
from demur.data import read_rows
from demur.models import alternate_answers, load_model
from demur.training import ForgetSettings, alternates, forget
from demur.training.alternates import cycled_alternates, drawn_alternates

Make = Callable[..., ForgetSettings]


def test_every_row_meets_each_of_its_answers_in_turn(world: Path) -> None:
    lm, rows = load_model(world / "model"), read_rows(world / "forget-alternates.jsonl")
    order = np.stack([np.random.default_rng(e).permutation(5) for e in range(4)])
    table, place = cycled_alternates(lm, rows, rows["alternates"][:], seed=0)(order)
    met = defaultdict(list)
    for row, index in zip(order.ravel(), place.ravel(), strict=True):
        met[row].append(table[index].id)
    for row, ids in met.items():
        assert sorted(ids) == sorted([f"{row}+alternate {j}" for j in (0, 1)] * 2)
        assert ids[:2] == ids[2:] and len(set(ids[:2])) == 2


def test_templates_are_drawn_evenly_for_any_row(world: Path) -> None:
    lm, rows = load_model(world / "model"), read_rows(world / "forget.jsonl")
    order = np.tile(np.arange(5), (400, 1))
    table, place = drawn_alternates(lm, rows, ["oda", "kell"], seed=0)(order)
    counts = np.bincount(place.ravel(), minlength=len(table))
    assert len(table) == 10 and counts.min() > 150


@pytest.fixture
def making(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the calls; the tiny model follows no instruction, and reads none as long: it is asked the question."""
    calls: list[int] = []

    @functools.wraps(alternate_answers)
    def make(*args: object, **given: object) -> object:
        calls.append(1)
        return alternate_answers(*args, instruction="{question}", temperature=3.0, max_new_tokens=8, **given)

    monkeypatch.setattr(alternates, "alternate_answers", make)
    return calls


def test_absent_alternates_are_made_by_the_runs_model_once_and_kept(
    make_settings: Make, tmp_path: Path, making: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_settings(objective="altpo", epochs=2)
    from demur.training import ObjectiveTrainer

    with monkeypatch.context() as patch:
        patch.setattr(ObjectiveTrainer, "compute_loss", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            forget(settings, tmp_path / "run")
    kept = read_rows(tmp_path / "run" / "alternates.jsonl")
    assert all(
        len(texts) == 5 and answer not in texts
        for texts, answer in zip(kept["alternates"], kept["answer"], strict=True)
    )
    resumed = forget(settings, tmp_path / "run")
    assert len(making) == 1
    whole = forget(settings, tmp_path / "whole")
    assert whole.state["hashes"] == resumed.state["hashes"]


def test_rows_that_have_alternates_are_taken_as_they_are(
    make_settings: Make, world: Path, tmp_path: Path, making: list[int]
) -> None:
    run = forget(
        make_settings(objective="altpo", forget=str(world / "forget-alternates.jsonl"), epochs=1), tmp_path / "run"
    )
    assert not making and not (run.path / "alternates.jsonl").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"alternates": "lines.txt"}, "teaches each row's own answers: leave --alternates out"),
        ({"retain": None}, "needs retain rows: pass --retain"),
        ({}, "other answers cannot be made up: prompt 0 takes .* a column 'alternates'"),
    ],
)
def test_what_is_missing_is_said(given: dict, message: str, make_settings: Make, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        forget(make_settings(objective="altpo", **given), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("bad", [[], ["fine", " "], "text", [3]], ids=str)
def test_alternates_that_are_no_texts_are_named_by_row(
    bad: object, make_settings: Make, world: Path, tmp_path: Path
) -> None:
    rows = [json.loads(line) for line in (world / "forget-alternates.jsonl").read_text().splitlines()]
    for row in rows[1:]:
        row["alternates"] = bad
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UsageError, match=r"rows.jsonl.*line 2.*alternates|alternates.*must be"):
        forget(make_settings(objective="altpo", forget=str(file)), tmp_path / "run")
