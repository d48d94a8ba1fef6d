from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from demur.data.labelled import split_off
from demur.data.labelled_sources import read_labelled
from demur.errors import UnknownNameError, UsageError

Needs = Callable[[str], None]


@pytest.fixture
def needs(shared_data: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> Needs:
    """Has the sources look where the real data lies; skips the test where a folder of it is absent."""
    return lambda folder: monkeypatch.setenv("DEMUR_SHARED_DATA", str(shared_data(folder).parent))


def test_omniglot_is_242_characters_of_ten_alphabets_with_twenty_drawings_each(needs: Needs) -> None:
    needs("omniglot-small")
    train, test = read_labelled("omniglot:train"), read_labelled("omniglot:test")
    assert (len(train), len(test), len(train.classes)) == (16 * 242, 4 * 242, 242)
    assert train.classes == test.classes and len(set(train.classes)) == 242
    assert (torch.bincount(train.labels) == 16).all() and (torch.bincount(test.labels) == 4).all()
    assert train.inputs.shape[1:] == (1, 28, 28)
    assert train.batch()[0].mean() < 0.2  # light ink on dark
    assert train.groups is not None
    for alphabet in train.groups.unique().tolist():
        names = {train.classes[c].split("/")[0] for c in train.labels[train.groups == alphabet].tolist()}
        assert len(names) == 1


def test_an_alphabet_can_be_forgotten(needs: Needs) -> None:
    needs("omniglot-small")
    split = split_off(read_labelled("omniglot:train"), "group:0")
    assert len({split.forget.classes[c].split("/")[0] for c in split.forget.labels.tolist()}) == 1


@pytest.mark.parametrize(
    ("source", "folder", "rows", "classes"),
    [
        ("compas", "compas_recourse", 6172, ("0", "1")),
        ("tabular:german_credit", "tabular_small", 1000, ("0", "1")),
        ("tabular:adult", "tabular_small", 32561, ("<=50K", ">50K")),
    ],
)
def test_named_tables_come_in_two_parts_that_share_no_row(
    needs: Needs, source: str, folder: str, rows: int, classes: tuple[str, ...]
) -> None:
    needs(folder)
    train, test = read_labelled(f"{source}:train"), read_labelled(f"{source}:test")
    assert len(train) == rows * 4 // 5 and len(train) + len(test) == rows and train.classes == classes
    assert not set(train.ids.tolist()) & set(test.ids.tolist())
    assert train.inputs.min() >= 0 and train.inputs.max() <= 1
    assert (read_labelled(f"{source}:train", seed=1).ids != train.ids).any()


def test_a_table_without_a_part_is_whole(needs: Needs) -> None:
    needs("tabular_small")
    assert len(read_labelled("tabular:german_credit[0:10]")) == 10
    assert len(read_labelled("tabular:dutch_census")) == 60420


@pytest.mark.parametrize(
    ("source", "problem"),
    [("tabular:adlut", "did you mean adult"), ("digits:tset", "did you mean test"), ("omniglot:all", "no part 'all'")],
)
def test_unknown_names_are_refused(source: str, problem: str) -> None:
    with pytest.raises(UnknownNameError, match=problem):
        read_labelled(source)


def test_what_is_not_here_says_where_it_would_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEMUR_SHARED_DATA", raising=False)
    for source in ("omniglot:train", "compas:train", "tabular:adult", "mnist:train"):
        with pytest.raises(UsageError, match="set DEMUR_SHARED_DATA"):
            read_labelled(source)


def test_digits_and_slices_of_them() -> None:
    train, test = read_labelled("digits:train"), read_labelled("digits:test")
    assert (len(train), len(test)) == (1200, 597)
    assert not set(train.ids.tolist()) & set(test.ids.tolist())
    assert torch.equal(read_labelled("digits:train[10:20]").inputs, train.inputs[10:20])
    with pytest.raises(UsageError, match="write a slice"):
        read_labelled("digits:train[a:b]")


def test_arrays_and_tables_of_ones_own(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", x=np.eye(4), y=np.array([0, 1, 1, 0]), groups=np.arange(4))
    data = read_labelled(str(tmp_path / "set.npz"))
    assert data.inputs.dtype == torch.float32 and data.groups is not None and data.classes == ("0", "1")
    np.savez(tmp_path / "bare.npz", x=np.eye(4))
    with pytest.raises(UsageError, match="has no array y"):
        read_labelled(str(tmp_path / "bare.npz"))
    file = tmp_path / "people.csv"
    pd.DataFrame({"age": [20, 40, 30], "kind": ["b", "a", "c"], "yes": ["n", "y", "n"]}).to_csv(file, index=False)
    table = read_labelled(str(file), target="yes")
    assert table.inputs.tolist() == [[0, 1, 0], [1, 0, 0], [0.5, 0, 1]] and table.classes == ("n", "y")
    for target, problem in ((None, "pass --target"), ("yse", "did you mean yes")):
        with pytest.raises(UsageError, match=problem):
            read_labelled(str(file), target=target)
