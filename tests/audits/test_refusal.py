"""The refusal suite's numbers by hand and by scikit-learn, with an engine that answers from a list."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest
from sklearn.metrics import f1_score, precision_score, recall_score, roc_auc_score

from demur.audits import AuditRequest, RefusalSettings, Samples, refusal_samples, run_refusal
from demur.audits.estimates import Audit, evaluate
from demur.audits.refusal import REFUSAL_METRICS, _parts
from demur.data import dataset_from_rows
from demur.errors import UsageError
from demur.models import Generation

NO, YES, BUT = "I'm sorry, I can't help with that.", "Nine feet.", "I cannot say. It is nine feet."
ROWS = [
    {"id": str(i), "prompt": f"request {i}", "label": label, "category": category, "kind": kind, "known": "nine feet"}
    for i, (label, category, kind) in enumerate(
        [("refuse", "gates", "breaks")] * 3
        + [("abstain", "wells", "breaks")] * 2
        + [("comply", "gates", "keeps")] * 3
        + [("comply", "wells", "look_alike")] * 2
    )
]
ANSWERS = [NO, YES, BUT, NO, "", NO, YES, YES, YES, NO]
REFUSED = [1, 0, 0, 1, 0, 1, 0, 0, 0, 1]
WANTED = [1] * 5 + [0] * 5


class Parrot:
    """Answers from a list; an empty one means that there was no answer."""

    def __init__(self, answers: list[str]) -> None:
        self.answers = iter(answers)

    def generate(self, prompts: list[Any], **options: Any) -> list[Generation]:
        return [Generation(text, (), "stop" if text else "error") for text in (next(self.answers) for _ in prompts)]


def measured(answers: list[str] = ANSWERS, rows: list[dict[str, Any]] = ROWS) -> Samples:
    return refusal_samples(Parrot(answers), dataset_from_rows(rows))  # type: ignore[arg-type]


def test_answers_are_labelled_full_partial_or_none_and_none_at_all_is_not_scored():
    tables = measured().tables
    labels = tables["refuse"]["refusal"].to_list()
    assert labels[:4] == ["full", "none", "partial", "full"] and pd.isna(labels[4])
    assert tables["comply"]["refusal"].to_list() == ["full", "none", "none", "none", "full"]
    assert tables["refuse"]["full"].isna().sum() == 1 and tables["refuse"]["id"].to_list() == list("01234")


def test_the_numbers_are_those_of_scikit_learn_on_the_rows_that_were_answered():
    found = evaluate(Audit(measured().tables), REFUSAL_METRICS)
    kept = [i for i, answer in enumerate(ANSWERS) if answer]
    wanted, refused = [WANTED[i] for i in kept], [REFUSED[i] for i in kept]
    assert found["full_refusals"].value == recall_score(wanted, refused) == 0.5
    assert (found["full_refusals"].n, found["full_refusals"].unscored) == (4, 1)
    exact = binomtest(2, 4).proportion_ci(method="exact")
    assert (found["full_refusals"].low, found["full_refusals"].high) == pytest.approx((exact.low, exact.high))
    assert found["partial_refusals"].value == 0.25 and found["over_refusals"].value == 0.4
    assert found["refusal_precision"].value == precision_score(wanted, refused)
    assert found["refusal_f1"].value == pytest.approx(f1_score(wanted, refused))
    assert found["refusal_f1"].unscored == 1 and found["refusal_f1"].low <= found["refusal_f1"].value
    assert found["refusal_token_auc"].value is None and "taught no refusal tokens" in found["refusal_token_auc"].note


def test_every_category_and_kind_has_its_own_number():
    samples = measured()
    names = _parts(samples)
    assert names == [
        *("full_refusals:gates", "full_refusals:wells"),
        *("over_refusals:gates", "over_refusals:wells", "over_refusals:keeps", "over_refusals:look_alike"),
    ]
    found = evaluate(Audit(samples.tables), names)
    assert found["full_refusals:gates"].value == pytest.approx(1 / 3)
    assert found["full_refusals:wells"].value == 1.0 and found["full_refusals:wells"].unscored == 1
    assert found["over_refusals:look_alike"].value == 0.5 and found["over_refusals:keeps"].n == 3


def test_token_scores_give_the_area_under_the_curve():
    tables = {name: table.copy() for name, table in measured().tables.items()}
    scores = np.linspace(0.9, 0.1, 10)[[0, 3, 1, 4, 2, 6, 9, 5, 8, 7]]
    tables["refuse"]["token_score"], tables["comply"]["token_score"] = scores[:5], scores[5:]
    (found,) = evaluate(Audit(tables), ["refusal_token_auc"]).values()
    assert found.value == pytest.approx(roc_auc_score(WANTED, scores))


def test_a_model_that_refuses_nothing_has_no_precision_and_one_kind_of_rows_no_f1():
    found = evaluate(Audit(measured([YES] * 10).tables), REFUSAL_METRICS)
    assert found["refusal_precision"].value is None and found["refusal_precision"].note == "nothing was refused"
    assert found["refusal_f1"].value == 0.0
    alone = evaluate(Audit(measured([NO] * 5, ROWS[:5]).tables), REFUSAL_METRICS)
    assert alone["full_refusals"].value == 1.0
    assert alone["over_refusals"].value is None and "to be answered" in alone["over_refusals"].note


def test_what_cannot_be_audited_is_refused(tmp_path: Path):
    with pytest.raises(UsageError, match="no column 'secret'"):
        refusal_samples(Parrot([]), dataset_from_rows(ROWS), RefusalSettings(known="secret"))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="label"):
        measured(rows=[{"prompt": "x"}])
    with pytest.raises(UsageError, match="--rows test=SOURCE"):
        run_refusal(AuditRequest("some/model", out=tmp_path))
    with pytest.raises(UsageError, match="no set 'tests'"):
        run_refusal(AuditRequest("some/model", sources={"tests": "x"}, out=tmp_path))
    with pytest.raises(UsageError, match="at least 1"):
        RefusalSettings(max_new_tokens=0)
