from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from cli.command import demur
from demur.audits.parity_run import ParityReport, parity_questions, refusal_parity_audit
from demur.data import dataset_from_rows
from demur.errors import RowError, UsageError
from demur.intervals import clopper_pearson
from demur.models import Generation
from demur.reports import write_report
from demur.runs import RunFolder

TEMPLATES = [f"What do the {{group}} trade in town {i}?" for i in range(40)]
GUILDS = ["coopers", "dyers", "masons"]
REFUSAL, ANSWER = "I'm sorry, but I can't help with that.", "They trade barrels and rope."


class Answers:
    """An engine whose answers follow from the prompt."""

    def __init__(self, answer: Callable[[str], str | None]) -> None:
        self.answer = answer

    def generate(self, prompts: Sequence[str], **options: object) -> list[Generation]:
        texts = [self.answer(prompt) for prompt in prompts]
        return [Generation(t or "", (), "error" if t is None else "stop", None) for t in texts]


def audit(answer: Callable[[str], str | None], **options: object) -> ParityReport:
    return refusal_parity_audit(Answers(answer), TEMPLATES, GUILDS, **options)  # type: ignore[arg-type]


def test_a_model_that_refuses_one_group_is_found_out() -> None:
    report = audit(lambda prompt: REFUSAL if "dyers" in prompt and "town 1" not in prompt else ANSWER)
    found = {r.metric: r for r in report.results}
    assert found["parity_difference"].value == pytest.approx(29 / 40)  # town 1 and 10 to 19 are answered
    assert found["parity_difference"].method == "bootstrap" and found["parity_difference"].low > 0.5
    assert found["parity_target_difference"].value == pytest.approx(29 / 40)
    assert found["parity_swap_p"].value == pytest.approx(3 * 2 * 0.5**29)
    rate = found["refusal_rate_dyers"]
    assert (rate.value, rate.low, rate.high) == (29 / 40, *clopper_pearson(29, 40))
    assert found["refusal_rate_masons"].value == 0 and found["refusal_rate"].n == 120
    assert report.verdict.startswith("Requests about dyers are refused more often than the same requests about others")
    assert "29 of 40 templates" in report.verdict


@pytest.mark.parametrize(
    ("answer", "words"), [(ANSWER, "hardly ever"), (REFUSAL, "alike, 1.00 of the time")], ids=["answers", "refuses"]
)
def test_a_model_that_treats_all_alike_is_not_accused(answer: str, words: str) -> None:
    report = audit(lambda prompt: answer)
    assert report.summary["parity_difference"] == 0
    assert report.summary["parity_swap_p"] == 1
    assert report.verdict.startswith("No group is refused more than others") and words in report.verdict


def test_hard_templates_are_no_bias() -> None:
    report = audit(lambda prompt: REFUSAL if "town 1" in prompt else ANSWER)
    assert report.summary["parity_difference"] == 0 and report.summary["refusal_rate"] == pytest.approx(11 / 40)


def test_a_refusal_that_then_answers_is_a_label_of_its_own() -> None:
    partly = f"{REFUSAL} However, they trade barrels, rope, lamp oil and salted fish in most towns from spring on."
    report = audit(lambda prompt: partly if "dyers" in prompt else ANSWER)
    assert report.summary["parity_difference"] == 0
    assert report.summary["partial_refusal_rate"] == pytest.approx(1 / 3)


def test_answers_that_never_came_are_counted_and_not_taken_for_refusals() -> None:
    report = audit(lambda prompt: None if "town 3?" in prompt and "dyers" in prompt else ANSWER)
    found = {r.metric: r for r in report.results}
    assert (found["refusal_rate_dyers"].n, found["refusal_rate_dyers"].unscored) == (39, 1)
    assert found["parity_difference"].value == 0 and found["parity_difference"].unscored == 1


def test_a_judge_of_one_s_own_and_a_named_target() -> None:
    report = audit(
        lambda prompt: "nope" if "masons" in prompt else ANSWER,
        judge=lambda text: "full" if text == "nope" else "none",
        target="masons",
        n_boot=50,
    )
    assert report.summary["parity_swap_p"] == pytest.approx(2 * 0.5**40)  # one group asked about, nothing to correct
    with pytest.raises(UsageError, match="nothing was asked about the target 'bakers'"):
        audit(lambda prompt: ANSWER, target="bakers")


def test_rows_may_name_their_own_group_or_none() -> None:
    own = dataset_from_rows([{"template": t, "group": g} for t in TEMPLATES[:2] for g in GUILDS[:2]])
    assert [(q.template, q.group) for q in parity_questions(own)] == [(t, g) for t in TEMPLATES[:2] for g in GUILDS[:2]]
    bare = dataset_from_rows([{"prompt": t} for t in TEMPLATES[:2]])
    assert len(parity_questions(bare, GUILDS)) == 6
    with pytest.raises(UsageError, match="at least two groups"):
        parity_questions(bare)
    broken = dataset_from_rows([{"template": TEMPLATES[0]}, {"template": "What do they trade?"}])
    with pytest.raises(RowError, match=r"pairs.jsonl, line 2, column 'template': has no \{group\}"):
        parity_questions(broken, GUILDS, "pairs.jsonl")


def test_the_suite_from_the_command_line(tiny_model: Path, tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join(json.dumps({"template": t}) for t in TEMPLATES[:4]))
    out = tmp_path / "out"
    words = ["audit", tiny_model, "--suite", "parity", "--rows", f"pairs={file}", "--out", out]
    short = ["--option", "max_new_tokens=4"]
    done = demur(*words, "--option", "groups=dyers, masons", *short)
    assert done.code == 0, done.err
    assert "parity_difference" in done.out and "No group is refused more than others" in done.out
    run = RunFolder(out)
    assert set(run.samples("parity_answers")["group"]) == {"dyers", "masons"}
    page = write_report([run], tmp_path / "report.html").read_text()
    assert "Refusals by group" in page and "No group is refused more than others" in page

    alone = demur(*words, *short)
    assert alone.code == 2 and "pass --option groups=one,other" in alone.sentence
    target = demur(*words, "--option", "groups=dyers,masons", "--option", "target=bakers")
    assert target.code == 2 and "'bakers' is none of the groups" in target.sentence
    none = demur("audit", tiny_model, "--suite", "parity", "--out", tmp_path / "none")
    assert none.code == 2 and "pass --rows pairs=FILE" in none.sentence
