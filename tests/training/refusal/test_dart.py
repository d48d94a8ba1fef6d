"""Sampling from a real model through the command line and the method: killed, resumed, reported, trained."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from cli.command import demur
from demur import UsageError
from demur.data import read_rows
from demur.data.answer_checker import check_answer
from demur.models import LocalEngine, load_model
from demur.training.refusal.dart import SampleSettings, sample_answers

ROWS = "lab:almanac-tiny:retain[:5]"
FEW = {"k": 3, "difficulty_samples": 4, "max_trials": 12, "max_new_tokens": 24}


def test_a_killed_command_goes_on_and_writes_the_same_rows(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["data", "sample", tiny_model, "--data", ROWS, "--temperature", 1.5]
    words += [word for name, value in FEW.items() for word in (f"--{name.replace('_', '-')}", value)]
    whole = tmp_path / "whole.jsonl"
    done = demur(*words, "--out", whole)
    assert done.code == 0, done.err
    assert "right answers to 5 queries" in done.out
    generate, calls, asked = LocalEngine.generate, [], []

    def stopping(self: LocalEngine, prompts: list, **options: object) -> list:
        calls.append(len(prompts))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return generate(self, prompts, **options)

    cut = tmp_path / "cut.jsonl"
    monkeypatch.setattr(LocalEngine, "generate", stopping)
    assert demur(*words, "--out", cut).code != 0
    assert not cut.exists() and (tmp_path / "cut.jsonl.draws").is_file()

    def counting(self: LocalEngine, prompts: list, **options: object) -> list:
        asked.append(len(prompts))
        return generate(self, prompts, **options)

    monkeypatch.setattr(LocalEngine, "generate", counting)
    done = demur(*words, "--out", cut)
    assert done.code == 0, done.err
    assert cut.read_text() == whole.read_text() and {f.name for f in tmp_path.iterdir()} == {"cut.jsonl", "whole.jsonl"}
    assert asked[0] == calls[1]  # the difficulty's answers were not drawn again


def test_rows_are_right_and_say_where_they_come_from(tiny_model: Path, tmp_path: Path) -> None:
    lm, rows = load_model(tiny_model), read_rows(ROWS)
    found, report, rates = sample_answers(lm, rows, SampleSettings(**FEW), tmp_path / "draws")
    known = dict(zip(rows["id"][:], rows["answer"][:], strict=True))
    assert all(check_answer(r, known[q]) for q, r in zip(found["query"][:], found["response"][:], strict=True))
    assert Counter(found["query"][:]) == {i: c for i, c in zip(report.ids, report.correct, strict=True) if c}
    assert len(rates) == len(rows) and all(0 <= d <= 1 for d in rates)
    again = tmp_path / "other"
    other, _, _ = sample_answers(lm, rows, SampleSettings(**FEW, batch_size=3), again)
    assert other.to_list() == found.to_list()
    with pytest.raises(UsageError, match="another seed"):
        sample_answers(lm, rows, SampleSettings(**FEW), again, seed=1)


def test_the_method_trains_on_its_own_right_answers(tiny_model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ["refuse", tiny_model, "--data", ROWS, "--method", "dart", "--option", "strategy=uniform"]
    words += [word for name, value in FEW.items() for word in ("--option", f"{name}={value}")]
    done = demur(*words, "--epochs", 1, "--out", run)
    assert done.code == 0, done.err
    assert "note:" in done.out and "coverage" in done.out
    facts = json.loads((run / "model" / "dart.json").read_text())
    assert {q["target"] for q in facts["queries"]} == {3} and len(facts["queries"]) == 5
    trained = read_rows(str(run / "rows" / "1-sft.jsonl"))
    assert len(trained) == sum(q["correct"] for q in facts["queries"])
    load_model(run)


def test_a_teacher_may_answer_in_its_place(tiny_model: Path, tiny_gold: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    words = ["data", "build", "dart", "--data", ROWS, "--option", f"teacher={tiny_gold}", "--out", out]
    words += [word for name, value in FEW.items() for word in ("--option", f"{name}={value}")]
    done = demur(*words)
    assert done.code == 0, done.err
    assert len(read_rows(str(out))) > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [({"temperature": 0.0}, "all agree"), ({"max_trials": 0}, "at least 1"), ({"budget": -1}, "at least 0")],
)
def test_settings_out_of_range_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SampleSettings(**options)  # type: ignore[arg-type]
