from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demur import UsageError
from demur.data import Encoded, collate
from demur.data.batch import IGNORE

PAD = 7


@st.composite
def encoded(draw: st.DrawFn) -> Encoded:
    ids = draw(st.lists(st.integers(0, 9), min_size=1, max_size=12))  # the pad id may occur inside
    return Encoded(ids, draw(st.integers(0, len(ids))), draw(st.text(max_size=3)))


@given(st.lists(encoded(), min_size=1, max_size=6), st.sampled_from(["right", "left"]))
def test_every_row_is_found_again_and_padding_is_never_attended_to(rows: list[Encoded], side: str) -> None:
    batch = collate(rows, PAD, side)
    assert batch.ids == [r.id for r in rows]
    for row, ids, mask, labels in zip(rows, batch.input_ids, batch.attention_mask, batch.labels, strict=True):
        assert ids[mask.bool()].tolist() == row.input_ids
        assert set(ids[~mask.bool()].tolist()) <= {PAD}
        expected = row.label_ids if row.prompt_length else row.input_ids[1:]
        assert labels[labels != IGNORE].tolist() == expected
        assert bool(mask[labels != IGNORE].all())
    assert batch.label_tokens == int((batch.labels != IGNORE).sum())


def test_nothing_and_nonsense_are_refused() -> None:
    with pytest.raises(UsageError, match="an empty batch"):
        collate([], PAD)
    with pytest.raises(UsageError, match="padding side"):
        collate([Encoded([1], 0)], PAD, "up")  # type: ignore[arg-type]
