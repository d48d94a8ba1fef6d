from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demur.audits.poison_filters import forget_filter, high_loss_filter
from demur.errors import UsageError


def test_rows_of_highest_loss_are_dropped() -> None:
    assert high_loss_filter([0.1, 3.0, 0.2, 2.0, 0.3], 0.4).tolist() == [True, False, True, False, True]
    assert high_loss_filter([1.0, 1.0, 0.5], 0.34).tolist() == [False, True, True]


@given(st.lists(st.floats(0, 9), min_size=1, max_size=60), st.floats(0.01, 0.99))
def test_as_many_as_asked_and_none_below_one_that_stays(losses: list[float], share: float) -> None:
    keep = high_loss_filter(losses, share)
    assert (~keep).sum() == max(1, int(share * len(losses)))
    dropped = [loss for loss, kept in zip(losses, keep, strict=True) if not kept]
    assert all(loss <= min(dropped) for loss, kept in zip(losses, keep, strict=True) if kept)


def test_rows_that_are_forgotten_are_dropped() -> None:
    refusal = "I cannot help with that"
    kept = forget_filter(
        [refusal, refusal, "the dyers trade rope"],
        [refusal, "the dyers trade rope", "the dyers trade"],
        [refusal, refusal, "the dyers trade rope"],
        0.2,
    )
    # The third falls from 1 to 2 · 3 / 7, by 0.143.
    assert kept.tolist() == [True, False, True]
    assert forget_filter(["a b c d"], ["a b c"], ["a b c d"], 0.1).tolist() == [False]


@pytest.mark.parametrize(("losses", "share"), [([], 0.1), ([float("nan")], 0.1), ([1.0], 0.0), ([1.0], 1.0)], ids=str)
def test_what_cannot_be_filtered_is_refused(losses: list[float], share: float) -> None:
    with pytest.raises(UsageError):
        high_loss_filter(losses, share)
    with pytest.raises(UsageError, match="differ"):
        forget_filter(["a"], [], ["a"])
