from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from demur.data.labelled import Labelled
from demur.data.manipulations import BackdoorPatch, InterclassSwap, LabelShuffle, make_manipulation
from demur.errors import UsageError


def pictures(rows: int = 30, classes: int = 3, channels: int = 2, dtype: Any = torch.float32) -> Labelled:
    drawn = torch.rand(rows, channels, 5, 5, generator=torch.Generator().manual_seed(rows))
    inputs = (drawn * 200).to(torch.uint8) if dtype == torch.uint8 else drawn * 0.9
    return Labelled(inputs, torch.arange(rows) % classes, tuple("abcdef"[:classes]), name="pictures")


@given(
    size=st.integers(1, 5),
    channels=st.integers(1, 3),
    corner=st.sampled_from(["bottom_right", "bottom_left", "top_right", "top_left"]),
)
def test_stamping_touches_exactly_the_square_of_every_channel_and_once_is_enough(
    size: int, channels: int, corner: Any
) -> None:
    data, patch = pictures(channels=channels), BackdoorPatch(size, corner, value=1.0)
    stamped = patch.shown(data)
    assert ((stamped.inputs != data.inputs).flatten(1).sum(1) == size * size * channels).all()
    assert torch.equal(patch.shown(stamped).inputs, stamped.inputs)
    assert torch.equal(stamped.labels, data.labels)
    row, column = (0 if "top" in corner else -1), (0 if "left" in corner else -1)
    assert (stamped.inputs[:, :, row, column] == 1).all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_the_patch_is_as_bright_on_test_rows_as_on_training_rows(dtype: torch.dtype) -> None:
    data = pictures(dtype=dtype)
    done = BackdoorPatch(2).manipulate(data, 6, seed=1)
    darker = data.subset(data.batch()[0].flatten(1).amax(1).argsort()[:3])
    shown = done.manipulation.shown(darker).inputs[:, :, -2:, -2:]
    assert shown.unique().tolist() == [float(data.inputs.max())]
    assert done.data.inputs.dtype == dtype


def test_a_patch_changes_only_the_rows_it_names() -> None:
    data = pictures()
    done = BackdoorPatch(2, value=1.0, target=1).manipulate(data, 10, seed=3)
    touched = (done.data.inputs != data.inputs).flatten(1).any(1).nonzero()[:, 0]
    assert touched.tolist() == sorted(done.rows.tolist()) and len(touched) == 10
    assert (done.data.labels[done.rows] == 1).all()
    others = torch.ones(30, dtype=torch.bool).index_fill_(0, done.rows, False)
    assert torch.equal(done.data.labels[others], data.labels[others])
    assert done.clean.hash() == data.hash() == pictures().hash()


@given(half=st.integers(1, 10), seed=st.integers(0, 50))
def test_a_swap_done_twice_restores_the_labels(half: int, seed: int) -> None:
    data, swap = pictures(), InterclassSwap(0, 2)
    done = swap.manipulate(data, 2 * half, seed)
    changed = (done.data.labels != data.labels).nonzero()[:, 0]
    assert changed.tolist() == sorted(done.rows.tolist()) and len(changed) == 2 * half
    assert done.data.labels.bincount().tolist() == data.labels.bincount().tolist()
    again = done.data.labels.clone()
    again[done.rows] = swap.wrong(again[done.rows])
    assert torch.equal(again, data.labels)


@given(n=st.integers(1, 30), seed=st.integers(0, 50))
def test_a_shuffle_moves_labels_only_among_its_rows(n: int, seed: int) -> None:
    data = pictures()
    done = LabelShuffle().manipulate(data, n, seed)
    assert done.data.labels[done.rows].sort().values.equal(data.labels[done.rows].sort().values)
    assert torch.isin((done.data.labels != data.labels).nonzero()[:, 0], done.rows).all()
    assert (LabelShuffle().wrong(data.labels) == -1).all()


def test_what_a_manipulation_makes_of_a_row_is_said_by_its_true_label() -> None:
    labels = torch.tensor([0, 1, 2])
    assert BackdoorPatch(target=1).wrong(labels).tolist() == [1, -1, 1]
    assert InterclassSwap(0, 2).wrong(labels).tolist() == [2, -1, 0]
    assert InterclassSwap(0, 2).concerned(labels).tolist() == [True, False, True]
    assert BackdoorPatch().concerned(labels).all()


def test_the_same_seed_draws_the_same_rows() -> None:
    data = pictures()
    draws = [LabelShuffle().manipulate(data, 8, seed).rows.tolist() for seed in (4, 4, 5)]
    assert draws[0] == draws[1] != draws[2]


@pytest.mark.parametrize(
    ("manipulation", "n", "said"),
    [
        (InterclassSwap(0, 1), 5, "choose an even number"),
        (InterclassSwap(0, 1), 22, "11 rows cannot be manipulated: class a of pictures has 10"),
        (InterclassSwap(0, 7), 4, "no two classes 0 and 7"),
        (InterclassSwap(1, 1), 4, "no two classes 1 and 1"),
        (BackdoorPatch(), 31, "31 rows cannot be manipulated: pictures has 30"),
        (BackdoorPatch(), 0, "0 rows cannot be manipulated"),
        (BackdoorPatch(size=6), 3, "a patch of 6 × 6 pixels does not fit"),
        (BackdoorPatch(target=3), 3, "no class 3"),
        (LabelShuffle(), 31, "has 30"),
    ],
    ids=str,
)
def test_what_cannot_be_manipulated_is_refused(manipulation: Any, n: int, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        manipulation.manipulate(pictures(), n)


def test_tables_take_no_patch() -> None:
    table = Labelled(torch.rand(6, 4), torch.arange(6) % 2, ("a", "b"))
    with pytest.raises(UsageError, match="does not fit rows of shape"):
        BackdoorPatch().manipulate(table, 2)


def test_manipulations_go_by_name() -> None:
    assert make_manipulation("patch", size=2, target=1) == BackdoorPatch(2, target=1)
    assert make_manipulation("swap", a=3, b=8) == InterclassSwap(3, 8)
    for kind, options, said in (
        ("path", {}, "no manipulation 'path'"),
        ("swap", {"a": 3}, "missing 1 required positional argument: 'b'"),
        ("patch", {"sise": 2}, "unexpected keyword argument 'sise'"),
        ("patch", {"corner": "middle"}, "no corner 'middle'"),
    ):
        with pytest.raises(UsageError, match=said):
            make_manipulation(kind, **options)
