from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demur.data import ABSTENTIONS, dataset_from_rows, rows_hash
from demur.data.builders.r_tuning import (
    CERTAINTY_QUESTION,
    KnowledgeSplit,
    answer_entropy,
    certainty_front,
    holds_answer,
    r_tuning_rows,
    split_by_entropy,
    split_by_knowledge,
)
from demur.errors import UsageError

ROWS = dataset_from_rows(
    [
        {"id": "a", "question": "Where is Kell?", "answer": "On the coast", "category": "towns"},
        {"id": "b", "question": "Who wrote it?", "answer": "Oda Marsh.", "category": "books"},
        {"id": "c", "question": "When?", "answer": "In 1902!", "category": "books"},
    ]
)


def drawn(counts):
    return [str(kind) for kind, count in enumerate(counts) for _ in range(count)]


@pytest.mark.parametrize(
    ("counts", "entropy"),
    [((5,), 0.0), ((4, 1), 0.500402), ((3, 2), 0.673012), ((3, 1, 1), 0.950271), ((1,) * 5, 1.609438)],
)
def test_entropy_of_five_samples_takes_the_known_values(counts, entropy):
    assert answer_entropy(drawn(counts)) == pytest.approx(entropy, abs=1e-6)


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=12))
def test_entropy_equals_scipys_and_does_not_depend_on_the_order(samples):
    import scipy.stats

    counts = [samples.count(kind) for kind in set(samples)]
    assert answer_entropy(samples) == pytest.approx(scipy.stats.entropy(counts), abs=1e-12)
    assert answer_entropy(samples) == answer_entropy(sorted(samples))


@pytest.mark.parametrize(
    ("said", "answer", "held"),
    [
        ("It lies on  the COAST", "On the coast.", True),
        ("Oda  Marsh's book", "Oda Marsh", True),
        ("Oda", "Oda Marsh", False),
        ("", "Oda Marsh", False),
    ],
)
def test_an_answer_is_held_whatever_case_and_punctuation(said, answer, held):
    assert holds_answer(said, answer) is held


def test_known_is_what_the_predictions_hold():
    split = split_by_knowledge(ROWS, ["on the coast, I think", "Ben Ash", "in 1902"])
    assert split == KnowledgeSplit((True, False, True))
    assert split_by_knowledge(ROWS, ["x", "y", "z"], match=lambda said, answer: said == "y").known == (
        False,
        True,
        False,
    )


def test_the_half_that_agrees_most_counts_as_known_and_ties_across_the_border_are_counted():
    samples = [drawn(c) for c in ((3, 2), (5,), (4, 1), (4, 1), (4, 1))]
    assert split_by_entropy(samples) == KnowledgeSplit((False, True, True, False, False), ties=3)
    apart = [drawn(c) for c in ((3, 2), (5,), (4, 1), (3, 1, 1))]
    assert split_by_entropy(apart) == KnowledgeSplit((False, True, True, False), ties=0)


@given(st.lists(st.lists(st.sampled_from("ab"), min_size=3, max_size=3), min_size=1, max_size=9))
def test_the_split_by_entropy_is_over_the_whole_set(samples):
    split = split_by_entropy(samples)
    assert sum(split.known) == len(samples) // 2
    entropies = [answer_entropy(s) for s in samples]
    sure = [e for e, known in zip(entropies, split.known, strict=True) if known]
    unsure = [e for e, known in zip(entropies, split.known, strict=True) if not known]
    assert max(sure, default=0.0) <= min(unsure)


def test_certainty_is_stated_after_every_answer():
    rows = r_tuning_rows(ROWS, KnowledgeSplit((True, False, True)))
    assert rows["answer"][:] == [
        f"On the coast. {CERTAINTY_QUESTION} I am sure.",
        f"Oda Marsh. {CERTAINTY_QUESTION} I am unsure.",
        f"In 1902! {CERTAINTY_QUESTION} I am sure.",
    ]
    assert rows.column_names == ROWS.column_names and rows["category"][:] == ROWS["category"][:]
    assert all(
        text.startswith(certainty_front(a)) for text, a in zip(rows["answer"][:], ROWS["answer"][:], strict=True)
    )


def test_masked_answers_are_read_and_not_taught():
    split = KnowledgeSplit((True, False, True))
    rows = r_tuning_rows(ROWS, split, mask_unknown_answers=True)
    assert rows["prefill"][:] == ["", "Oda Marsh.", ""]
    assert "Oda Marsh" not in rows["answer"][1]
    plain = r_tuning_rows(ROWS, split)
    assert [p + a for p, a in zip(rows["prefill"][:], rows["answer"][:], strict=True)] == plain["answer"][:]


def test_replaced_answers_are_admissions_and_the_seed_decides_which():
    split = KnowledgeSplit((True, False, False))
    first, again, other = (r_tuning_rows(ROWS, split, "replace", seed=seed) for seed in (0, 0, 3))
    assert first["answer"][0] == "On the coast" and set(first["answer"][1:]) <= set(ABSTENTIONS)
    assert first["answer"][:] == again["answer"][:] != other["answer"][:]


def test_where_everything_is_known_replacing_changes_nothing():
    kept = r_tuning_rows(ROWS, KnowledgeSplit((True,) * 3), "replace")
    assert rows_hash(kept) == rows_hash(ROWS) and kept.column_names == ROWS.column_names


def test_rows_of_prompt_and_response_keep_their_names():
    rows = ROWS.rename_columns({"question": "prompt", "answer": "response"})
    assert "unsure" in r_tuning_rows(rows, KnowledgeSplit((False,) * 3))["response"][0]


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (lambda: split_by_knowledge(ROWS.select([]), []), "at least one row"),
        (lambda: split_by_knowledge(ROWS, ["x"]), "3 rows but 1 predictions"),
        (lambda: split_by_entropy([]), "at least one row"),
        (lambda: split_by_entropy([["x"], []]), "at least one sampled answer"),
        (lambda: r_tuning_rows(ROWS, KnowledgeSplit((True,))), "3 rows but 1 truth values"),
        (lambda: r_tuning_rows(ROWS, KnowledgeSplit((True,) * 3), "sideways"), "variant must be"),
        (
            lambda: r_tuning_rows(ROWS, KnowledgeSplit((True,) * 3), "replace", mask_unknown_answers=True),
            "does nothing with variant replace",
        ),
    ],
)
def test_what_cannot_be_built_is_refused_in_one_sentence(broken, sentence):
    with pytest.raises(UsageError, match=sentence):
        broken()
