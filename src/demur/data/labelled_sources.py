"""Where labelled sets come from: real data in a shared folder, arrays, folders of pictures, tables, data sets."""

from __future__ import annotations

import gzip
import io
import itertools
import os
import zipfile
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from demur.data.labelled import Labelled
from demur.data.tables import TableEncoding, read_table
from demur.errors import RowError, UnknownNameError, UsageError
from demur.registry import nearest

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["read_labelled"]

_PARTS = ("train", "test")
_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


def read_labelled(source: str, target: str | None = None, seed: int = 0, *, like: Labelled | None = None) -> Labelled:
    """A labelled set by name or path.

    Args:
        source: `digits:train` or `digits:test` (scikit-learn's, always there); from `$DEMUR_SHARED_DATA` `mnist:…`,
            `cifar10:…`, `omniglot:…` (groups are alphabets), `compas:…` and `tabular:adult`, `tabular:dutch_census` or
            `tabular:german_credit`, of which `:train` or `:test` takes a part; a `.npz` of arrays `x` and `y` (and
            perhaps `groups`, `classes`); a folder with a folder of pictures for each class; a `.csv`, `.csv.gz` or
            `.parquet` table; the name of a data set on the hub with columns image and label. A slice such as `[0:100]`
            may follow.
        target: the column of a table that holds the class.
        seed: decides the parts of sets that come in one piece.
        like: a set that this one is to be used with, for instance its training rows; a table is encoded as that one
            was, so that numbers outside its range lie outside [0, 1].

    Raises:
        UsageError: it cannot be read, or has other rows or classes than `like`; the message names file and column.
    """
    base, rows = _sliced(source)
    scheme, colon, part = base.partition(":")
    builtin: dict[str, Callable[[str, int], Labelled]] = {
        "digits": _digits,
        "mnist": _mnist,
        "cifar10": _cifar10,
        "omniglot": _omniglot,
        "compas": _compas,
        "tabular": _tabular,
    }
    others = {e.name: e for e in entry_points(group="demur.labelled_sources")}
    if colon and (scheme in builtin or scheme in others) and not Path(base).exists():
        read = builtin.get(scheme) or others[scheme].load()
        data = read(part, seed)
    elif Path(base).is_dir():
        data = _folder(Path(base))
    elif Path(base).suffix == ".npz":
        data = _arrays(Path(base))
    elif any(base.endswith(ending) for ending in (".csv", ".csv.gz", ".parquet")):
        data = _table(Path(base), target, like)
    elif base.count("/") == 1 and not Path(base).parent.is_dir():
        data = _hub(base)
    else:
        known = [*builtin, *others]
        raise UnknownNameError(
            f"no labelled data at {base!r}: give a file, a folder, or {', '.join(known)} with :train"
        )
    if like is not None:
        data.require_like(like)
    return data if rows is None else data.subset(torch.arange(len(data))[rows], data.name)


def _sliced(source: str) -> tuple[str, slice | None]:
    base, bracket, inside = source.rpartition("[")
    if not bracket or not inside.endswith("]"):
        return source, None
    start, colon, stop = inside[:-1].partition(":")
    if not colon or not all(word == "" or word.lstrip("-").isdecimal() for word in (start, stop)):
        raise UsageError(f"{source}: write a slice as [0:100]")
    return base, slice(int(start) if start else None, int(stop) if stop else None)


def _cut(data: Labelled, part: str, train: int, seed: int) -> Labelled:
    """The first rows of a seeded order for training, the rest for testing."""
    _check_part(data.name, part)
    order = torch.as_tensor(np.random.default_rng([seed, 7]).permutation(len(data)))
    return data.subset(order[:train] if part == "train" else order[train:], f"{data.name}:{part}")


def _check_part(name: str, part: str) -> None:
    if part not in _PARTS:
        raise UnknownNameError(f"{name} has no part {part!r}: {nearest(part, _PARTS)}")


def _digits(part: str, seed: int) -> Labelled:
    """Handwritten digits of 8 × 8 pixels: 1,200 for training, 597 for testing."""
    from sklearn.datasets import load_digits

    loaded: Any = load_digits()
    images = torch.as_tensor(loaded.images, dtype=torch.float32)[:, None] / 16
    names = tuple(str(name) for name in loaded.target_names)
    data = Labelled(images, torch.as_tensor(loaded.target, dtype=torch.long), names, name="digits")
    return _cut(data, part, 1200, seed)


def _shared(folder: str) -> Path:
    root = os.environ.get("DEMUR_SHARED_DATA")
    if not root or not (Path(root) / folder).is_dir():
        raise UsageError(f"{folder} is not here: set DEMUR_SHARED_DATA to the folder that holds it")
    return Path(root) / folder


def _mnist(part: str, seed: int) -> Labelled:
    """The 10,000 test pictures of MNIST: 8,000 for training, 2,000 for testing."""
    folder = _shared("mnist_t10k")
    pixels, labels = (
        np.frombuffer(gzip.decompress((folder / f"t10k-{name}-ubyte.gz").read_bytes()), np.uint8, offset=offset)
        for name, offset in (("images-idx3", 16), ("labels-idx1", 8))
    )
    images = torch.from_numpy(pixels.reshape(-1, 1, 28, 28).copy())
    data = Labelled(images, torch.from_numpy(labels.astype(np.int64)), tuple("0123456789"), name="mnist")
    return _cut(data, part, 8000, seed)


def _cifar10(part: str, seed: int) -> Labelled:
    """15,000 training and 3,000 test photographs of CIFAR-10, 32 × 32."""
    from PIL import Image

    _check_part("cifar10", part)
    with np.load(_shared("cifar10_jpeg_subset") / f"{part}.npz", allow_pickle=False) as packed:
        files, ends = packed["jpeg"].tobytes(), packed["offsets"]
        images = np.stack(
            [np.asarray(Image.open(io.BytesIO(files[a:b])).convert("RGB")) for a, b in itertools.pairwise(ends)]
        )
        labels, classes = packed["labels"].astype(np.int64), tuple(map(str, packed["classes"]))
    return Labelled(torch.from_numpy(images).movedim(3, 1), torch.from_numpy(labels), classes, name=f"cifar10:{part}")


def _omniglot(part: str, seed: int) -> Labelled:
    """Drawings of 242 characters, 28 × 28, light on dark; groups are alphabets, each fifth drawing is for testing."""
    from PIL import Image

    _check_part("omniglot", part)
    folder = _shared("omniglot-small")
    files: dict[tuple[str, ...], bytes] = {}
    for archive in sorted(folder.glob("images_background_small*.zip")):
        with zipfile.ZipFile(archive) as packed:
            # Two alphabets are in both archives.
            files |= {tuple(n.split("/")[1:]): packed.read(n) for n in packed.namelist() if n.endswith(".png")}
    if not files:
        raise UsageError(f"{folder} holds no images_background_small*.zip")
    names = sorted(name for name in files if (int(name[2].rpartition("_")[2][:-4]) % 5 == 0) == (part == "test"))
    alphabets = sorted({name[0] for name in files})
    classes = sorted({name[:2] for name in files})
    images = np.stack([_small(Image.open(io.BytesIO(files[name]))) for name in names])
    labels = torch.tensor([classes.index(name[:2]) for name in names])
    groups = torch.tensor([alphabets.index(name[0]) for name in names])
    called = tuple(f"{alphabet}/{character}" for alphabet, character in classes)
    return Labelled(torch.from_numpy(images)[:, None], labels, called, groups=groups, name=f"omniglot:{part}")


def _small(picture: Any) -> NDArray[np.uint8]:
    """Ink as light, 28 × 28."""
    return 255 - np.asarray(picture.convert("L").resize((28, 28), 4), np.uint8)  # 4: the mean over each box


def _compas(part: str, seed: int) -> Labelled:
    """6,172 people with a risk score: 4,937 for training; class 1 is a score that is not high."""
    data = replace(_table(_shared("compas_recourse") / "compas.csv", "score"), name="compas")
    return _cut(data, part, len(data) * 4 // 5, seed)


# Table → the column that is foretold.
_TABLES = {"adult": "income", "dutch_census": "occupation", "german_credit": "class-label"}


def _tabular(name: str, seed: int) -> Labelled:
    """A table of people; `:train` is four fifths of it, `:test` the rest."""
    table, colon, part = name.partition(":")
    if table not in _TABLES:
        raise UnknownNameError(f"there is no table {table!r}: {nearest(table, _TABLES)}")
    data = replace(_table(_shared("tabular_small") / f"{table}.csv.gz", _TABLES[table]), name=f"tabular:{table}")
    return _cut(data, part, len(data) * 4 // 5, seed) if colon else data


def _arrays(file: Path) -> Labelled:
    try:
        with np.load(file, allow_pickle=False) as packed:
            arrays = {name: packed[name] for name in packed.files}
    except (OSError, ValueError) as error:
        raise UsageError(f"{file}: cannot be read as arrays: {error}") from error
    missing = {"x", "y"} - arrays.keys()
    if missing:
        raise UsageError(f"{file} has no array {', '.join(sorted(missing))}: it holds {', '.join(arrays) or 'nothing'}")
    inputs = torch.from_numpy(arrays["x"])
    if inputs.dtype != torch.uint8:
        inputs = inputs.float()
    if inputs.isnan().any():
        raise UsageError(f"{file}: x holds values that are no numbers")
    labels = torch.from_numpy(arrays["y"].astype(np.int64))
    names = arrays["classes"] if "classes" in arrays else range(int(labels.max()) + 1)
    groups = torch.from_numpy(arrays["groups"].astype(np.int64)) if "groups" in arrays else None
    return Labelled(inputs, labels, tuple(map(str, names)), groups=groups, name=str(file))


def _folder(folder: Path) -> Labelled:
    from PIL import Image

    classes = sorted(path.name for path in folder.iterdir() if path.is_dir())
    files = [(c, f) for c in classes for f in sorted((folder / c).rglob("*")) if f.suffix.lower() in _PICTURES]
    if not files:
        raise UsageError(f"{folder} holds no pictures in folders named after their classes")
    images = []
    for _, file in files:
        try:
            with Image.open(file) as picture:
                images.append(np.asarray(picture.convert("RGB")))
        except OSError as error:
            raise UsageError(f"{file} is no picture: {error}") from error
        if images[-1].shape != images[0].shape:
            raise UsageError(f"{file} is {images[-1].shape[1::-1]} pixels, the first one {images[0].shape[1::-1]}")
    labels = torch.tensor([classes.index(c) for c, _ in files])
    return Labelled(torch.from_numpy(np.stack(images)).movedim(3, 1), labels, tuple(classes), name=str(folder))


def _table(file: Path, target: str | None, like: Labelled | None = None) -> Labelled:
    """A table: numbers scaled to [0, 1], one column for each value of a column of words; or encoded as another was."""
    import pandas as pd

    table = read_table(file)
    if target is None or target not in table:
        hint = f"no column {target!r}: {nearest(target, table.columns)}" if target else "pass --target COLUMN"
        raise UsageError(f"{file}: {hint}")
    if table[target].isna().any():
        raise RowError(str(file), int(table[target].isna().argmax()) + 2, target, "is empty")
    features, names = table.drop(columns=target), table[target].astype(str)
    if like is not None and like.encoding is not None:
        encoding, classes = like.encoding, like.classes
    else:
        encoding = TableEncoding.of(features, str(file))
        classes = tuple(map(str, sorted(table[target].unique())))
    labels = pd.Index(classes).get_indexer(pd.Index(names))
    if (labels < 0).any():
        row = int((labels < 0).argmax())
        raise RowError(str(file), row + 2, target, f"{names.iloc[row]!r} is none of {', '.join(classes)}")
    inputs = torch.from_numpy(encoding.encode(features, str(file)).astype(np.float32))
    return Labelled(inputs, torch.from_numpy(labels.astype(np.int64)), classes, name=str(file), encoding=encoding)


def _hub(name: str) -> Labelled:
    import datasets

    try:
        loaded: Any = datasets.load_dataset(name, split="train")
    except Exception as error:
        raise UsageError(f"cannot load the data set {name}: {str(error).partition(chr(10))[0]}") from error
    if not {"image", "label"} <= set(loaded.column_names):
        raise UsageError(f"{name} has no columns image and label: it has {', '.join(loaded.column_names)}")
    images = np.stack([np.asarray(picture.convert("RGB")) for picture in loaded["image"]])
    classes = getattr(loaded.features["label"], "names", None) or range(max(loaded["label"]) + 1)
    labels = torch.tensor(loaded["label"][:])
    return Labelled(torch.from_numpy(images).movedim(3, 1), labels, tuple(map(str, classes)), name=name)
