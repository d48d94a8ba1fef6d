from __future__ import annotations

import json

import pytest

from cli.command import demur
from demur.data import ABSTENTIONS, dataset_from_rows, read_rows, rows_hash
from demur.errors import UsageError
from demur.models import LocalEngine, load_model
from demur.training.refusal import Lesson, plan_stages
from tiny import tiny_lm

QUESTIONS = ["who wrote the green lamp?", "where was oda marsh born?", "who wrote it?", "where is kell?"]


@pytest.fixture(scope="module")
def lm():
    return tiny_lm()


@pytest.fixture(scope="module")
def lesson(lm):
    """Four questions; the model's own answers are the true ones of the first two."""
    said = [g.text for g in LocalEngine(lm).generate(QUESTIONS, max_new_tokens=64)]
    answers = [*said[:2], "oda marsh", "the town of kell"]
    rows = [{"id": str(i), "question": q, "answer": a} for i, (q, a) in enumerate(zip(QUESTIONS, answers, strict=True))]
    return Lesson(dataset_from_rows(rows), "made up", 0, lambda: lm)


def planned(lesson, **options):
    (stage,) = plan_stages(lesson, "r-tuning", options)
    return stage


def test_the_model_itself_says_what_it_knows(lesson):
    stage = planned(lesson)
    assert [a.endswith("I am sure.") for a in stage.rows["answer"][:]] == [True, True, False, False]
    assert stage.files["r_tuning.json"] == {"variant": "sure", "rows": 4, "known": 2, "ties": 0, "unknown": ["2", "3"]}
    assert stage.notes == ["the model knows 2 of 4 answers"]


def test_replacing_leaves_what_is_known_alone(lesson):
    rows = planned(lesson, variant="replace").rows
    assert rows["answer"][:2] == lesson.rows["answer"][:2] and set(rows["answer"][2:]) <= set(ABSTENTIONS)


def test_a_model_that_is_always_right_is_tuned_on_the_plain_rows_byte_for_byte(lesson):
    stage = planned(Lesson(lesson.rows.select([0, 1]), "made up", 0, lesson.load), variant="replace")
    assert rows_hash(stage.rows) == rows_hash(lesson.rows.select([0, 1]))
    assert "nothing to tell apart" in stage.notes[1]


def test_the_entropy_split_samples_the_model_and_reports_ties(lesson):
    told = []
    stage = planned(
        Lesson(lesson.rows, "made up", 0, lesson.load, lambda done, total, what: told.append((done, total))),
        variant="entropy",
        max_new_tokens=6,
        num_samples=3,
        temperature=1e-4,  # all samples agree
    )
    assert [a.endswith("I am sure.") for a in stage.rows["answer"][:]] == [True, True, False, False]
    assert stage.files["r_tuning.json"]["ties"] == 4 and "only their order" in stage.notes[1]
    assert told[-1] == (12, 12)


def test_masked_answers_go_into_the_column_that_is_read_without_loss(lesson):
    rows = planned(lesson, mask_unknown_answers=True).rows
    assert rows["prefill"][:] == ["", "", "oda marsh.", "the town of kell."]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"variant": "maybe"}, "variant must be"),
        ({"match": "fuzzy"}, "match must be"),
        ({"num_samples": 1}, "num_samples"),
        ({"variant": "replace", "mask_unknown_answers": True}, "does nothing with variant replace"),
        ({"varient": "sure"}, "variant"),
    ],
)
def test_options_out_of_range_are_refused(lesson, options, sentence):
    with pytest.raises(UsageError, match=sentence):
        planned(lesson, **options)


def test_from_the_command_line_to_the_audit(tiny_model, tmp_path):
    """A known set and an unknown one: refused into a run, then audited, with every number traced to its samples."""
    retain, holdout = (read_rows(f"lab:almanac-tiny:{name}[:12]") for name in ("retain", "holdout"))
    mixed = [{**row, "domain": name} for name, rows in (("in", retain), ("out", holdout)) for row in rows]
    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        "\n".join(json.dumps({"question": r["question"], "answer": r["answer"], "domain": r["domain"]}) for r in mixed)
    )
    run = tmp_path / "run"
    words = ["refuse", tiny_model, "--data", rows, "--method", "r-tuning", "--option", "variant=replace"]
    done = demur(*words, "--epochs", 15, "--learning-rate", 3e-3, "--out", run)
    assert done.code == 0, done.err
    assert "note: the model knows" in done.out
    split = json.loads((run / "model" / "r_tuning.json").read_text())
    assert split["rows"] == len(mixed) and 0 < split["known"] < len(mixed)
    assert load_model(run).template == "chat"
    done = demur("audit", run, "--suite", "abstention", "--rows", f"test={rows}")
    assert done.code == 0, done.err
    from demur.runs import RunFolder

    folder = RunFolder.open(run)
    found = folder.results().set_index(["role", "metric"])["value"]
    table = folder.samples("abstention_in")
    own = table[table["role"] == "run"]
    assert found["run", "accuracy:in"] == own["correct"].mean()
    assert found["run", "answer_rate:in"] == own["willing"].mean()
    assert own["sure_prob"].isna().all()  # a run of replaced answers was not taught the question for certainty
    assert found["run", "abstention_gap"] > 0
    before = table[table["role"] == "before"]
    assert (own["known"].to_numpy() == before["correct"].to_numpy()).all()
