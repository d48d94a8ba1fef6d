from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from demur.data.labelled import Labelled, split_off
from demur.data.labelled_sources import read_labelled
from demur.errors import UsageError


def small(rows: int = 12, classes: int = 3) -> Labelled:
    labels = torch.arange(rows) % classes
    return Labelled(
        torch.arange(rows * 2.0).view(rows, 2),
        labels,
        ("ash", "beech", "cedar")[:classes],
        groups=torch.arange(rows) % 2,
    )


@given(rows=st.integers(4, 40), seed=st.integers(0, 99), some=st.integers(1, 3))
def test_the_two_parts_are_the_whole_without_overlap(rows: int, seed: int, some: int) -> None:
    data = small(rows)
    for what in ("class:ash", "group:1", f"random:{some}"):
        parted = split_off(data, what, seed)
        ids = torch.cat([parted.forget.ids, parted.retain.ids])
        assert sorted(ids.tolist()) == list(range(rows))
        assert parted.train.hash() == data.subset(torch.cat([parted.retain.ids, parted.forget.ids])).hash()


def test_classes_go_by_name_or_number_and_groups_by_number() -> None:
    data = small()
    assert split_off(data, "class:beech,2").forget.labels.unique().tolist() == [1, 2]
    assert split_off(data, "group:0").forget.ids.tolist() == list(range(0, 12, 2))
    assert len(split_off(data, "random:0.25").forget) == len(split_off(data, "random:3").forget) == 3


def test_random_rows_are_the_seed_s(tmp_path: Path) -> None:
    data = small()
    assert split_off(data, "random:4", 1).forget.ids.tolist() == split_off(data, "random:4", 1).forget.ids.tolist()
    assert split_off(data, "random:4", 1).forget.ids.tolist() != split_off(data, "random:4", 2).forget.ids.tolist()


def test_listed_rows_are_ids_also_of_a_subset(tmp_path: Path) -> None:
    file = tmp_path / "rows.npy"
    np.save(file, np.array([5, 3]))
    part = small().subset([5, 4, 3, 2])
    assert split_off(part, f"rows:{file}").forget.ids.tolist() == [5, 3]


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("klass:1", "write class:NAME"),
        ("class:oak", "has no class 'oak'"),
        ("class:ash,beech,cedar", "takes all of the 12 rows"),
        ("group:7", "takes none"),
        ("group:x", "give numbers from 0 to 1"),
        ("random:1.5.2", "give a share"),
        ("random:99", "has 12 rows only"),
        ("rows:nowhere.npy", "cannot be read"),
    ],
)
def test_what_names_no_part_of_the_rows_is_refused(what: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        split_off(small(), what)


@pytest.mark.parametrize(
    ("listed", "said"), [([1, 1], "1 stands there twice"), ([40], "40 is no row"), ([0.5], "float64")]
)
def test_a_list_of_rows_must_be_of_rows(tmp_path: Path, listed: list[float], said: str) -> None:
    np.save(tmp_path / "rows.npy", np.array(listed))
    with pytest.raises(UsageError, match=said):
        split_off(small(), f"rows:{tmp_path / 'rows.npy'}")


def test_a_label_outside_the_classes_is_refused() -> None:
    with pytest.raises(UsageError, match=r"label 3 is outside 0\.\.1"):
        Labelled(torch.zeros(2, 1), torch.tensor([0, 3]), ("a", "b"))


def test_bytes_are_read_as_shares_of_255() -> None:
    data = Labelled(torch.tensor([[0, 255]], dtype=torch.uint8), torch.tensor([0]), ("a",))
    assert data.batch()[0].tolist() == [[0.0, 1.0]]


def test_digits_come_in_two_parts_that_the_seed_decides() -> None:
    train, test = read_labelled("digits:train", seed=1), read_labelled("digits:test", seed=1)
    assert (len(train), len(test)) == (1200, 597) and not set(train.ids.tolist()) & set(test.ids.tolist())
    assert train.inputs.shape == (1200, 1, 8, 8) and float(train.inputs.max()) == 1.0
    assert read_labelled("digits:train", seed=2).hash() != train.hash()
    assert read_labelled("digits:train[0:7]", seed=1).ids.tolist() == train.ids[:7].tolist()


def test_arrays_folders_and_tables_are_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((3, 2), np.float32), y=np.array([0, 1, 1]), groups=np.array([4, 4, 5]))
    arrays = read_labelled(str(tmp_path / "a.npz"))
    assert arrays.classes == ("0", "1") and arrays.groups is not None and arrays.groups.tolist() == [4, 4, 5]
    for name, grey in (("cat", 0), ("dog", 200)):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        Image.new("RGB", (4, 3), (grey,) * 3).save(tmp_path / "pictures" / name / "1.png")
    pictures = read_labelled(str(tmp_path / "pictures"))
    assert (
        pictures.inputs.shape == (2, 3, 3, 4)
        and pictures.classes == ("cat", "dog")
        and int(pictures.inputs[1, 0, 0, 0]) == 200
    )
    (tmp_path / "t.csv").write_text("age,town,out\n10,kell,no\n20,orrin,yes\n30,kell,no\n")
    table = read_labelled(str(tmp_path / "t.csv"), target="out")
    assert table.classes == ("no", "yes") and table.inputs.tolist() == [[0.0, 0.0], [0.5, 1.0], [1.0, 0.0]]
    (tmp_path / "n.csv").write_text("age,out\n10,no\n20,yes\n")
    assert read_labelled(str(tmp_path / "n.csv"), target="out").inputs.tolist() == [[0.0], [1.0]]


@pytest.mark.parametrize(
    ("file", "content", "target", "said"),
    [
        ("t.csv", "age,out\n1,a\n,b\n", "out", "line 3, column 'age': is empty"),
        ("t.csv", "age,out\n1,a\n", "outt", "no column 'outt'"),
        ("t.csv", "age,out\n1,a\n", None, "pass --target"),
        ("t.csv", "age,out\n1,a\n2,\n", "out", "line 3, column 'out': is empty"),
        ("t.npz", "no arrays", None, "cannot be read as arrays"),
    ],
)
def test_a_file_that_is_no_labelled_set_is_named(
    tmp_path: Path, file: str, content: str, target: str | None, said: str
) -> None:
    (tmp_path / file).write_text(content)
    with pytest.raises(UsageError, match=said):
        read_labelled(str(tmp_path / file), target=target)


def test_unknown_sources_parts_and_slices_are_refused(tmp_path: Path) -> None:
    for source, said in (("digitz", "no labelled data"), ("digits:trian", "has no part"), ("digits:train[3]", "slice")):
        with pytest.raises(UsageError, match=said):
            read_labelled(source)


@pytest.mark.parametrize(
    ("source", "rows", "shape"), [("mnist:test", 2000, (1, 28, 28)), ("cifar10:test", 3000, (3, 32, 32))]
)
def test_shared_pictures_are_read(
    source: str, rows: int, shape: tuple[int, ...], shared_data: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shared_data("mnist_t10k" if source.startswith("mnist") else "cifar10_jpeg_subset")
    monkeypatch.setenv("DEMUR_SHARED_DATA", str(folder.parent))
    data = read_labelled(source)
    assert data.inputs.shape == (rows, *shape) and data.inputs.dtype == torch.uint8
    assert data.labels.unique().tolist() == list(range(10))
