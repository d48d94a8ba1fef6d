from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import average_precision_score

from demur.audits import AuditRequest
from demur.audits.abstention import (
    AbstentionSettings,
    abstains,
    abstention_samples,
    answer_with_certainty,
    run_abstention,
)
from demur.audits.abstention_metrics import CONFIDENCES, abstention_results
from demur.data import ABSTENTIONS, dataset_from_rows, write_rows
from demur.errors import UsageError
from demur.models import LocalEngine, render
from tiny import save_tiny, tiny_lm

PROMPTS = ["who wrote the green lamp?", "where was oda marsh born?", "who?"]
ASK = "are you sure?"


def settings(**more):
    return AbstentionSettings(**{"question": ASK, "max_new_tokens": 8, **more})


@pytest.fixture(scope="module")
def lm():
    return tiny_lm()


def test_confidence_is_that_of_the_generated_tokens(lm):
    found = answer_with_certainty(lm, PROMPTS, settings(certainty="none"))
    for prompt, answer in zip(PROMPTS, found, strict=True):
        (generation,) = LocalEngine(lm).generate([prompt], max_new_tokens=8)
        text = render(lm.tokenizer, lm.template, prompt)
        ids = lm.tokenizer(text, add_special_tokens=False)["input_ids"]
        said = [t for t in generation.token_ids if t != lm.tokenizer.eos_token_id]
        with torch.no_grad():
            p = lm.model(torch.tensor([[*ids, *said]])).logits[0].double().softmax(-1)
        each = [float(p[len(ids) - 1 + i].max()) for i in range(len(said))]  # greedy: the likeliest at each place
        assert answer.text == generation.text
        assert answer.predict_conf == pytest.approx(math.prod(each) ** (1 / len(each)), rel=1e-5)
        assert math.isnan(answer.sure_prob) and math.isnan(answer.combined)


def test_the_tokens_after_the_answers_end_count_for_nothing(lm):
    (whole,) = answer_with_certainty(lm, PROMPTS[:1], settings(certainty="none"))
    stop = whole.text[3]
    (cut,) = answer_with_certainty(lm, PROMPTS[:1], settings(certainty="none", stop=stop))
    assert cut.text == whole.text[: whole.text.index(stop)].strip()
    assert cut.predict_conf != whole.predict_conf


def test_an_empty_answer_has_no_confidence_and_is_counted_as_unscored(lm):
    (first,) = answer_with_certainty(lm, PROMPTS[:1], settings(certainty="none"))
    (empty,) = answer_with_certainty(lm, PROMPTS[:1], settings(stop=first.text[0]))
    assert empty.text == "" and math.isnan(empty.predict_conf) and 0 < empty.sure_prob < 1


@pytest.mark.parametrize("certainty", ["answer", "turn"])
def test_sure_is_weighed_against_unsure_at_their_first_token_in_context(lm, certainty):
    (answer,) = answer_with_certainty(lm, PROMPTS[:1], settings(certainty=certainty))
    if certainty == "answer":
        text = render(lm.tokenizer, "chat", PROMPTS[0]) + f"{answer.text}. {ASK} I am"
    else:
        talk = [
            {"role": "user", "content": PROMPTS[0]},
            {"role": "assistant", "content": answer.text},
            {"role": "user", "content": ASK},
        ]
        text = render(lm.tokenizer, "chat", talk) + "I am"
    one, other = (lm.tokenizer(f"{text} {word}.", add_special_tokens=False)["input_ids"] for word in ("sure", "unsure"))
    place = next(i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    assert lm.tokenizer.decode(other[place:]).lstrip().startswith("un")
    with torch.no_grad():
        p = lm.model(torch.tensor([one[:place]])).logits[0, -1].double().softmax(-1)
    expected = float(p[one[place]] / (p[one[place]] + p[other[place]]))
    assert answer.sure_prob == pytest.approx(expected, rel=1e-5)


def test_words_that_begin_with_the_same_token_are_refused(lm):
    with pytest.raises(UsageError, match="begin with the same token"):
        answer_with_certainty(lm, PROMPTS[:1], settings(words=("certain", "certainly not")))


def test_swapped_words_turn_the_certainty_round(lm):
    plain, swapped = (
        answer_with_certainty(lm, PROMPTS, settings(words=words)) for words in (("sure", "unsure"), ("unsure", "sure"))
    )
    for one, other in zip(plain, swapped, strict=True):
        assert one.sure_prob == pytest.approx(1 - other.sure_prob, abs=1e-6)


def test_nothing_depends_on_the_batch_size_or_the_order(lm):
    together = answer_with_certainty(lm, PROMPTS, settings())
    alone = answer_with_certainty(lm, PROMPTS[::-1], settings(batch_size=1))[::-1]
    for one, other in zip(together, alone, strict=True):
        assert one.text == other.text
        assert (one.predict_conf, one.sure_prob) == pytest.approx((other.predict_conf, other.sure_prob), rel=1e-5)


@pytest.mark.parametrize(
    ("answer", "held_back"),
    [
        ("Oda Marsh.", False),
        ("I do not know.", True),
        (ABSTENTIONS[2], True),
        ("I am not sure, but it was Oda Marsh.", False),  # it does give the answer
        ("I am not sure, but it was Ben Ash.", True),
        ("", False),
    ],
)
def test_abstaining_is_told_from_answering(answer, held_back):
    assert abstains(answer, "Oda Marsh") is held_back


def test_every_admission_that_is_taught_is_recognised():
    assert all(abstains(sentence, "Oda Marsh") for sentence in ABSTENTIONS)


# Eight answers of two domains, of which four questions are known.
TABLE = pd.DataFrame(
    {
        "correct": [1, 0, 1, 1, 0, 0, 1, 0],
        "abstained": [0, 1, 0, 0, 0, 1, 0, 0],
        "willing": [1, 0, 1, 1, 0, 0, 1, 1],
        "known": [1, 0, 1, 1, 0, 0, 1, np.nan],
        "predict_conf": [0.9, 0.8, 0.6, 0.4, 0.3, 0.2, 0.7, 0.75],
        "sure_prob": [0.95, 0.2, 0.7, 0.9, 0.4, 0.1, 0.8, 0.6],
    },
    dtype=float,
)
TABLE["combined"] = (TABLE["predict_conf"] + TABLE["sure_prob"]) / 2


def measured(tables, **options):
    results, notes = abstention_results(tables, **options)
    return {r.metric: r for r in results}, notes


def test_every_number_is_that_of_its_samples():
    found, notes = measured({"in": TABLE[:4], "out": TABLE[4:]})
    assert notes == {}
    for suffix, table in (("", TABLE), (":in", TABLE[:4]), (":out", TABLE[4:])):
        assert found[f"accuracy{suffix}"].value == table["correct"].mean()
        assert found[f"answer_rate{suffix}"].value == table["willing"].mean()
        assert found[f"willing_accuracy{suffix}"].value == table["correct"][table["willing"] == 1].mean()
        known, unknown = (1 - table["willing"][table["known"] == k].mean() for k in (1, 0))
        assert (found[f"abstention_known{suffix}"].value, found[f"abstention_unknown{suffix}"].value) == (
            known,
            unknown,
        )
        assert found[f"abstention_gap{suffix}"].value == unknown - known
        for column in CONFIDENCES:
            expected = average_precision_score(table["correct"], table[column])
            assert found[f"ap_{column}{suffix}"].value == pytest.approx(expected)
    assert found["sure_gap"].value == pytest.approx(1.0 - 0.25)


def test_every_number_has_an_interval_around_it_and_says_how_many():
    found, _ = measured({"all": TABLE})
    for result in found.values():
        assert result.low is not None and result.low <= result.value <= result.high, result.metric
        assert result.n == {"willing_accuracy": 5, "abstention_known": 4, "abstention_unknown": 3}.get(
            result.metric, 7 if result.metric == "abstention_gap" else 8
        )


def test_what_cannot_be_measured_says_why_and_counts_what_has_no_value():
    silent = TABLE.assign(sure_prob=np.nan, combined=np.nan, known=np.nan)
    silent.loc[0, "predict_conf"] = np.nan
    found, notes = measured({"all": silent})
    assert found["ap_sure_prob"].value is None and "sure_prob" in notes["ap_sure_prob"]
    assert found["abstention_known"].value is None
    assert (found["ap_predict_conf"].n, found["ap_predict_conf"].unscored) == (7, 1)
    none_right, notes = measured({"all": TABLE.assign(correct=0.0)})
    assert none_right["ap_combined"].value is None and notes["ap_combined"] == "no answer is right"
    assert none_right["aurc_combined"].value == 1.0


@pytest.fixture
def model(tmp_path):
    return str(save_tiny(tmp_path / "model"))


def rows_file(tmp_path, **columns):
    rows = [{"question": p, "answer": "oda marsh"} for p in PROMPTS]
    for name, values in columns.items():
        rows = [{**row, name: value} for row, value in zip(rows, values, strict=True)]
    write_rows(tmp_path / "rows.jsonl", dataset_from_rows(rows))
    return str(tmp_path / "rows.jsonl")


def request(tmp_path, model, rows, **options):
    options = {"question": ASK, "max_new_tokens": 8, **options}
    return AuditRequest(model, out=tmp_path / "out", sources={"test": rows}, settings=options)


def test_a_column_parts_the_rows_into_domains_and_another_says_what_is_known(tmp_path, model, lab_cache):
    rows = rows_file(tmp_path, domain=["in", "in", "out of it"], known=[True, False, False])
    folder, (report,) = run_abstention(request(tmp_path, model, rows))
    names = {r.metric for r in report.results}
    assert {"accuracy", "accuracy:in", "accuracy:out_of_it"} <= names
    table = folder.samples("abstention_in")
    assert table["known"].tolist() == [1.0, 0.0] and len(table) == 2
    assert folder.samples("abstention_out_of_it")["prompt"].tolist() == [PROMPTS[2]]
    assert folder.state["abstention"]["domains"] == ["in", "out_of_it"]


def test_a_label_says_what_is_known_and_a_model_alone_does_not(tmp_path, model, lab_cache):
    rows = rows_file(tmp_path, label=["comply", "abstain", None])
    folder, _ = run_abstention(request(tmp_path, model, rows, certainty="none"))
    known = folder.samples("abstention_test")["known"].tolist()
    assert known[:2] == [1.0, 0.0] and math.isnan(known[2])
    bare = rows_file(tmp_path)
    again = AuditRequest(model, out=tmp_path / "other", sources={"test": bare}, settings={"certainty": "none"})
    _, (report,) = run_abstention(again)
    assert report.notes["abstention_known"].startswith("the answers rows have no known")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"certainty": "loud"}, "certainty must be"),
        ({"bins": 0}, "bins"),
        ({"binz": 3}, "bins"),
        ({"words": ["a"]}, "two"),
    ],
)
def test_settings_out_of_range_are_refused(tmp_path, model, options, sentence):
    with pytest.raises(UsageError, match=sentence):
        run_abstention(request(tmp_path, model, "nowhere.jsonl", **options))


def test_without_rows_nothing_is_asked(tmp_path, model):
    with pytest.raises(UsageError, match="--rows NAME=SOURCE"):
        run_abstention(AuditRequest(model, out=tmp_path / "out"))


def test_samples_hold_what_was_asked_and_said(lm):
    rows = dataset_from_rows([{"id": "a", "question": PROMPTS[0], "answer": "oda marsh"}])
    table = abstention_samples(lm, {"x": rows}, settings()).tables["x"]
    (line,) = table.to_dict("records")
    assert (line["id"], line["prompt"], line["truth"]) == ("a", PROMPTS[0], "oda marsh")
    assert line["combined"] == pytest.approx((line["predict_conf"] + line["sure_prob"]) / 2)
    assert line["willing"] == float(line["sure_prob"] > 0.5)
