"""Where labelled sets come from: real data in a shared folder, arrays, folders of pictures, tables, data sets."""

from __future__ import annotations

import gzip
import io
import itertools
import os
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import torch

from demur.data.labelled import Labelled
from demur.errors import UnknownNameError, UsageError
from demur.registry import nearest

__all__ = ["read_labelled"]

_PARTS = ("train", "test")
_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


def read_labelled(source: str, target: str | None = None, seed: int = 0) -> Labelled:
    """A labelled set by name or path.

    Args:
        source: `digits:train` or `digits:test` (scikit-learn's, always there); `mnist:…` and `cifar10:…` from
            `$DEMUR_SHARED_DATA`; a `.npz` of arrays `x` and `y` (and perhaps `groups`, `classes`); a folder with a
            folder of pictures for each class; a `.csv`, `.csv.gz` or `.parquet` table; the name of a data set on the
            hub with columns image and label. A slice such as `[0:100]` may follow.
        target: the column of a table that holds the class.
        seed: decides the parts of sets that come in one piece.

    Raises:
        UsageError: it cannot be read; the message names file and column.
    """
    base, rows = _sliced(source)
    scheme, colon, part = base.partition(":")
    builtin: dict[str, Callable[[str, int], Labelled]] = {"digits": _digits, "mnist": _mnist, "cifar10": _cifar10}
    others = {e.name: e for e in entry_points(group="demur.labelled_sources")}
    if colon and (scheme in builtin or scheme in others) and not Path(base).exists():
        read = builtin.get(scheme) or others[scheme].load()
        data = read(part, seed)
    elif Path(base).is_dir():
        data = _folder(Path(base))
    elif Path(base).suffix == ".npz":
        data = _arrays(Path(base))
    elif any(base.endswith(ending) for ending in (".csv", ".csv.gz", ".parquet")):
        data = _table(Path(base), target)
    elif base.count("/") == 1 and not Path(base).parent.is_dir():
        data = _hub(base)
    else:
        known = [*builtin, *others]
        raise UnknownNameError(
            f"no labelled data at {base!r}: give a file, a folder, or {', '.join(known)} with :train"
        )
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


def _table(file: Path, target: str | None) -> Labelled:
    """A table: numbers scaled to [0, 1], one column for each value of a column of words."""
    import pandas as pd

    try:
        table = pd.read_parquet(file) if file.suffix == ".parquet" else pd.read_csv(file, skipinitialspace=True)
    except (OSError, ValueError) as error:
        raise UsageError(f"{file}: cannot be read as a table: {error}") from error
    if target is None or target not in table:
        hint = f"no column {target!r}: {nearest(target, table.columns)}" if target else "pass --target COLUMN"
        raise UsageError(f"{file}: {hint}")
    labels, names = pd.factorize(table[target], sort=True)
    if (labels < 0).any():
        raise UsageError(f"{file}, row {int(np.flatnonzero(labels < 0)[0]) + 1}: column {target!r} is empty")
    features = table.drop(columns=target)
    numbers = features.select_dtypes("number")
    empty = numbers.columns[numbers.isna().any()]
    if len(empty):
        raise UsageError(f"{file}: column {empty[0]!r} has empty cells: fill them or drop the column")
    span = (numbers.max() - numbers.min()).replace(0, 1)
    words = pd.get_dummies(features.drop(columns=numbers.columns), drop_first=True)
    columns = pd.concat([(numbers - numbers.min()) / span, words], axis=1).to_numpy(np.float32)
    return Labelled(torch.from_numpy(columns), torch.from_numpy(labels), tuple(map(str, names)), name=str(file))


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
