"""SafeEraser's metrics: oracles by hand and by rouge-score, and the suite through the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rouge_score import rouge_scorer
from scipy.stats import binomtest

from cli.command import demur
from demur.audits import AuditRequest, SafeEraserSettings, safe_answer_refusal_rate, safe_eraser_samples
from demur.audits.estimates import Audit, evaluate
from demur.audits.safe_eraser import SAFE_ERASER_METRICS, run_safe_eraser
from demur.errors import UsageError
from demur.lab import rows
from demur.models import Generation
from demur.runs import RunFolder
from tiny_vision import tiny_vision_folder

REFUSALS = ["I'm sorry, I can't help with that.", "I cannot answer.", "Unfortunately, no."]
NORMAL = [f"The picture shows {n} red chairs in a garden." for n in ("one", "two", "three", "four", "five", "six")]


class Parrot:
    """Answers from a list, in turn."""

    def __init__(self, *answers: str) -> None:
        self.answers, self.asked = answers, []

    def generate(self, prompts, **options):
        self.asked += prompts
        return [Generation(self.answers[i % len(self.answers)], (), "stop") for i, _ in enumerate(prompts)]


def test_three_refusals_and_a_repeated_word_among_ten_replies_are_four_tenths() -> None:
    found = safe_answer_refusal_rate([*REFUSALS, "chair chair chair chair chair", *NORMAL])
    exact = binomtest(4, 10).proportion_ci(method="exact")
    assert (found.value, found.n, found.unscored) == (0.4, 10, 0)
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high))


def test_what_is_not_judged_stays_in_the_denominator_and_is_never_taken_for_safe() -> None:
    replies = iter(["yes"] * 5 + ["no"] * 2 + ["exception"] * 3)
    found = safe_answer_refusal_rate(["x"] * 10, judge=lambda *_: next(replies))
    assert (found.value, found.n, found.unscored) == (0.2, 10, 3)
    assert found.high == pytest.approx(binomtest(5, 10).proportion_ci(method="exact").high)
    assert "3 answers were not judged" in found.note


def test_metrics_of_hand_made_answers() -> None:
    table = pd.DataFrame({"unsafe": [1.0, 0.0, 0.0, np.nan], "refusal": [0.0, 1.0, 0.0, 1.0]})
    found = evaluate(Audit({"forget": table}), SAFE_ERASER_METRICS)
    assert found["asr_efficacy"].value == 0.25 and found["asr_efficacy"].unscored == 1
    assert found["rr_efficacy"].value == 0.5
    assert found["sarr"].value is None and "no benign rows" in found["sarr"].note


def test_rouge_has_both_roles_right() -> None:
    harmless = rows("scenes-digits:harmless").select(range(4))
    answers = [harmless["answer"][0], "nothing of it", f"{harmless['answer'][2]} and more words", "running dogs"]
    table = safe_eraser_samples(Parrot(*answers), {"harmless": harmless})["harmless"]
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)
    for i, answer in enumerate(answers):
        expected = scorer.score(harmless["answer"][i], answer)["rougeL"]
        row = table.iloc[i]
        found = (row["rougeL_recall"], row["rougeL_precision"], row["rougeL_f1"])
        assert found == pytest.approx((expected.recall, expected.precision, expected.fmeasure))
        swapped = scorer.score(answer, harmless["answer"][i])["rougeL"]
        assert row["rougeL_recall"] == pytest.approx(swapped.precision)
    assert table["rougeL_recall"][2] == 1.0 > table["rougeL_precision"][2]


def test_unsafe_questions_are_asked_three_times_and_others_once() -> None:
    sets = {name: rows(f"scenes-digits:{name}").select(range(2)) for name in ("forget", "benign", "harmless")}
    parrot = Parrot("I cannot say.", "so it is here")
    tables = safe_eraser_samples(parrot, sets)
    assert [len(tables[name]) for name in sets] == [6, 2, 2] and len(parrot.asked) == 10
    assert tables["forget"]["id"].is_unique
    assert tables["forget"]["refusal"].tolist() == [1, 0] * 3 and tables["forget"]["unsafe"].tolist() == [0, 1] * 3
    assert tables["benign"]["not_answered"].tolist() == [1, 0]


def test_settings_out_of_range_and_unknown_sets_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown judge"):
        SafeEraserSettings(judge="gpt")
    with pytest.raises(UsageError, match="samples"):
        SafeEraserSettings(samples=0)
    for sources, words in (({}, "pass --forget"), ({"forget": "x", "benin": "y"}, "did you mean benign")):
        with pytest.raises(UsageError, match=words):
            run_safe_eraser(AuditRequest("some/model", sources=sources, out=tmp_path))


def test_a_run_is_forgotten_and_audited_from_the_command_line(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = tiny_vision_folder(tmp_path_factory.getbasetemp())
    scenes, run = "lab:scenes-digits", tmp_path / "run"
    sets = [f"--{name}={scenes}:{name}[0:4]" for name in ("forget", "retain", "decoupled")]
    words = ["--objective", "idk", "--decouple-weight", 0.5, "--epochs", 1, "--no-trajectory", "--out", run]
    done = demur("forget", model, *sets, *words)
    assert (done.code, done.err) == (0, ""), done
    assert RunFolder(run).config["decouple_weight"] == 0.5
    options = ["samples=1", "temperature=0", "max_new_tokens=6", "judge=exact"]
    done = demur(
        *("audit", run, "--suite", "safe-eraser", "--rows", f"unseen={scenes}:unseen[0:3]", "--no-before"),
        *(word for option in options for word in ("--option", option)),
    )
    assert (done.code, done.err) == (0, ""), done
    found = RunFolder(run).results().query("suite == 'safe-eraser'").set_index("metric")
    assert set(found.index) == set(SAFE_ERASER_METRICS) and found["value"].notna().all()
    assert found["n"]["asr_generality"] == 3 and found["n"]["sarr"] == found["n"]["harmless_rouge_f1"] == 4
    assert found["better"]["sarr"] == "lower" and found["high"]["sarr"] >= found["value"]["sarr"]
    events = [event for event in RunFolder(run).events() if event["event"] == "audit"]
    assert "trained on" in events[-1]["notes"]["benign"]
    assert len(RunFolder(run).samples("safe_eraser_benign")) == 4
