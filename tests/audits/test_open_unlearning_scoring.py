from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from audits.open_unlearning_values import AGGREGATES, GRADNORM_OF_HOLDOUT_ROWS, MIN_K_OF_FORGET_ROWS
from audits.tiny_world import tiny_data, tiny_lm
from demur.audits.membership import ATTACKS
from demur.audits.open_unlearning import TOFU, read_eval
from demur.audits.open_unlearning_scoring import compat_encode, compat_token_stats
from demur.audits.tofu import TofuReport, audit_tofu
from demur.audits.tofu_data import TofuSettings
from demur.data import Encoded

CASES: dict[str, dict[str, Any]] = {
    "chat": {"system_prompt": "Be brief, don't guess."},
    "plain": {},
    "paraphrased question": {"question_key": "paraphrased_question"},
}


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, TofuReport, Path]:
    """A compat audit whose reference went through open-unlearning's file format."""
    name = request.param
    template = "plain" if name == "plain" else "chat"
    options = {"compat": "open-unlearning", "max_new_tokens": 10, "attacks": ATTACKS, "batch_size": 4, **CASES[name]}
    folder = tmp_path_factory.mktemp("compat")
    gold = audit_tofu(tiny_lm(template, True, 0.7), tiny_data(), **options)
    gold.save_open_unlearning(folder / "gold")
    report = audit_tofu(tiny_lm(template, True), tiny_data(), reference=read_eval(folder / "gold"), **options)
    report.save_open_unlearning(folder / "run")
    return name, report, folder / "run"


def test_every_aggregate_equals_open_unlearning(case: tuple[str, TofuReport, Path]) -> None:
    import json

    name, report, folder = case
    log = json.loads((folder / TOFU.eval_file).read_text())
    found = {metric: entry["agg_value"] for metric, entry in log.items() if metric in AGGREGATES[name]}
    found["truth_share"] = report.summary["forget_truth_share"]
    assert found == pytest.approx(AGGREGATES[name], abs=1e-6, rel=2e-6)


def test_every_row_equals_open_unlearning(case: tuple[str, TofuReport, Path]) -> None:
    name, report, _ = case
    tables = report.measured.tables
    assert list(tables["forget"]["mia_min_k"]) == pytest.approx(MIN_K_OF_FORGET_ROWS[name], abs=1e-5)
    assert list(tables["holdout"]["mia_gradnorm"]) == pytest.approx(GRADNORM_OF_HOLDOUT_ROWS[name], rel=1e-5)


def test_an_end_token_that_is_the_pad_token_is_hidden_inside_the_text_too() -> None:
    def losses(pad_is_end: bool, compat: str | None) -> list[float]:
        lm = tiny_lm("chat", pad_is_end)
        report = audit_tofu(lm, tiny_data(), compat=compat, generation=False)
        return list(report.measured.tables["forget"]["loss"])

    assert losses(False, "open-unlearning") == pytest.approx(losses(False, None), abs=1e-5)
    assert losses(True, None) == pytest.approx(losses(False, None), abs=1e-5)
    assert losses(True, "open-unlearning") != pytest.approx(losses(True, None), abs=1e-4)


def test_the_border_is_the_prompts_own_length_even_where_a_token_reaches_across_it() -> None:
    lm = tiny_lm("plain")
    (merged,) = compat_encode(lm, ["Who?"], ["The one."], ["0"], TofuSettings(compat="open-unlearning"))
    prompt = lm.tokenizer("Question: Who?\nAnswer: ")["input_ids"]
    whole = lm.tokenizer("Question: Who?\nAnswer: The one.")["input_ids"]
    assert whole[: len(prompt)] != prompt
    assert merged.prompt_length == len(prompt)
    assert merged.input_ids == [*whole, lm.tokenizer.eos_token_id]


def test_an_answer_without_label_tokens_makes_its_means_undefined_as_there() -> None:
    lm = tiny_lm("plain")
    stats = compat_token_stats(lm, [Encoded([5, 6, 7], 3, "0")])[0]
    assert len(stats.logps) == len(stats.hits) == len(stats.mu) == 0
