from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from demur.audits.rouge import longest_common_subsequence, rouge_scores

WORDS = ["the", "authors", "author's", "running", "runs", "1987", "Yun-Hwa", "it", "a,", "born", "b.", "über"]
words = st.lists(st.sampled_from(WORDS), max_size=25)


@given(words, words, st.booleans())
@settings(max_examples=200, deadline=None)
def test_scores_equal_those_of_the_rouge_score_package(truth: list[str], answer: list[str], stem: bool) -> None:
    expected = RougeScorer(["rouge1", "rougeL"], use_stemmer=stem).score(" ".join(truth), " ".join(answer))
    found = rouge_scores(" ".join(truth), " ".join(answer), stem)
    assert found.rouge1_recall == expected["rouge1"].recall
    assert found.rougeL_recall == expected["rougeL"].recall
    assert found.rougeL_f1 == pytest.approx(expected["rougeL"].fmeasure, abs=1e-12)


def _table(first: str, second: str) -> int:
    row = [0] * (len(second) + 1)
    for a in first:
        new = [0]
        for j, b in enumerate(second):
            new.append(row[j] + 1 if a == b else max(row[j + 1], new[-1]))
        row = new
    return row[-1]


@given(st.text("abc", max_size=90), st.text("abcd", max_size=90))
def test_longest_common_subsequence_equals_the_table(first: str, second: str) -> None:
    assert longest_common_subsequence(first, second) == _table(first, second)


@pytest.mark.parametrize(("stem", "recall"), [(True, 2 / 3), (False, 5 / 9)])
def test_stems_make_inflected_words_the_same(stem: bool, recall: float) -> None:
    truth = "The author's full name is Hsiao Yun-Hwa."
    answer = "The authors' complete name was Hsiao Yun Hwa, born in Taipei"
    assert rouge_scores(truth, answer, stem).rougeL_recall == pytest.approx(recall)


@pytest.mark.parametrize("log", ["phi_full", "llama2-7b_full"])
def test_published_answers_have_exactly_the_published_scores(shared_data: Callable[[str], Path], log: str) -> None:
    with gzip.open(shared_data("tofu-eval-logs") / f"{log}.json.gz", "rt", encoding="utf-8") as file:
        rows = [row for task in json.load(file).values() for row in task]
    assert len(rows) == 817
    found = [rouge_scores(row["ground_truth"], row["generation"]) for row in rows]
    assert [s.rougeL_recall for s in found] == [row["rougeL_recall"] for row in rows]
    assert [s.rouge1_recall for s in found] == [row["rouge1_recall"] for row in rows]
