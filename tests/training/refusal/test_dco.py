from __future__ import annotations

import json
from pathlib import Path

import pytest
from datasets import Dataset

from cli.command import demur
from demur import UsageError
from demur.models import load_model
from demur.training.refusal import Lesson, plan_stages
from tiny import tiny_lm

ROWS = "lab:almanac-tiny:retain[:8]"


def planned(**options: object) -> tuple[str, dict]:
    rows = Dataset.from_list([{"id": "a", "prompt": "who?", "response": "oda\nmarsh"}])
    (stage,) = plan_stages(Lesson(rows, "rows", 0, tiny_lm), "dco", options)
    return stage.objective, dict(stage.options)


def test_variants_become_objectives_with_their_options() -> None:
    assert planned() == ("dco", {"n": 16.0, "min_factor": 0.0})
    assert planned(n=64, min_factor=0.001) == ("dco", {"n": 64, "min_factor": 0.001})
    assert planned(n=4, variant="step") == ("dco-step", {"n": 4, "separator": -1})


def test_a_separator_is_the_models_own_token() -> None:
    lm = tiny_lm()
    objective, options = planned(variant="step", separator="\n")
    assert objective == "dco-step" and lm.tokenizer.decode([options["separator"]]) == "\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "approx"}, "dco_approx_loss"),
        ({"variant": "exakt"}, "must be exact or step"),
        ({"variant": "step", "separator": "oda marsh"}, "must be one token"),
        ({"separator": "\n"}, "belongs to variant=step"),
        ({"variant": "step", "min_factor": 0.1}, "belongs to variant=exact"),
    ],
)
def test_what_does_not_go_together_is_said(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        planned(**options)


def test_it_limits_confidence_where_imitation_does_not(tiny_model: Path, tmp_path: Path) -> None:
    from demur.data import question_answer, read_rows
    from demur.models import LocalEngine

    means = {}
    for n in (1, 64):
        run = tmp_path / f"n{n}"
        words = ["refuse", tiny_model, "--data", ROWS, "--method", "dco", "--option", f"n={n}"]
        done = demur(*words, "--epochs", 6, "--learning-rate", 1e-3, "--out", run)
        assert done.code == 0, done.err
        scores = LocalEngine(load_model(run)).score(*question_answer(read_rows(ROWS)))
        means[n] = sum(s.logp for s in scores) / len(scores)
        plan = json.loads((run / "stages.json").read_text())
        assert plan[0]["objective"] == "dco"
    assert means[64] < means[1]
