from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demur.data.columns import dataset_from_rows
from demur.errors import UsageError
from demur.training.inputs import encode_preferences
from tiny import tiny_lm

LM = tiny_lm()


def pairs(count: int) -> list[dict[str, str]]:
    words = "abcdefghij"
    return [{"id": str(i), "prompt": "who?", "chosen": words[i], "rejected": "oda"} for i in range(count)]


@given(count=st.integers(2, 10), seed=st.integers(0, 50))
def test_every_row_is_compared_with_another_row_s_answer_and_each_answer_is_used_once(count: int, seed: int) -> None:
    rows = dataset_from_rows(pairs(count))
    tables = encode_preferences(LM, rows, "pairs.jsonl", ("chosen", "mismatched"), seed)
    own, others = ([tuple(item.label_ids) for item in tables[role]] for role in ("chosen", "mismatched"))
    assert all(a != b for a, b in zip(own, others, strict=True))
    assert sorted(own) == sorted(others)


def test_one_row_has_no_other_answer_and_pairs_need_their_columns() -> None:
    with pytest.raises(UsageError, match=r"pairs\.jsonl has one row only"):
        encode_preferences(LM, dataset_from_rows(pairs(1)), "pairs.jsonl", ("mismatched",), 0)
    lacking = dataset_from_rows([{"id": "0", "prompt": "who?", "chosen": "a"}])
    with pytest.raises(UsageError, match=r"pairs\.jsonl lacks the columns rejected"):
        encode_preferences(LM, lacking, "pairs.jsonl", ("chosen", "rejected"), 0)
