"""Reading rows from files, folders, benchmarks and the hub, with errors that name the file, the line and the column."""

from __future__ import annotations

import difflib
import gzip
import json
import os
import re
import zlib
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from demur.data.columns import dataset_from_rows
from demur.data.formats import PARSERS
from demur.data.rows import check_row, iterate, schema_for
from demur.errors import RowError, UsageError
from demur.registry import nearest

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

__all__ = ["check_rows", "read_lines", "read_rows"]

_ALIASES = {"question": "prompt", "prompt": "question", "answer": "response", "response": "answer"}
_ENDINGS = (*PARSERS, *(f"{ending}.gz" for ending in PARSERS), ".parquet")
_SLICE = re.compile(r"(?P<source>.+)\[(?P<start>-?\d*):(?P<stop>-?\d*)\]")
_SHARD = re.compile(r"(?P<split>.+?)-\d{5}-of-\d{5}")
_HUB = re.compile(r"(?P<name>\w[\w.-]*/\w[\w.-]*)(:(?P<config>[\w.-]+))?")


class _Loaded(NamedTuple):
    dataset: Dataset
    places: list[tuple[str, int]] | None = None  # file and line of each row, where the source has lines
    split_done: bool = False  # the source knew the split that was asked for


def read_rows(source: str | os.PathLike[str], *, required: Sequence[str] = (), split: str | None = None) -> Dataset:
    """Read a data set and check its rows.

    Args:
        source: a file (.jsonl, .ndjson, .json, .csv, each also with .gz, or .parquet), a folder (made by
            `Dataset.save_to_disk`, or holding data files), `tofu:NAME` for a split of the TOFU benchmark, or a hub name
            `owner/name` or `owner/name:config`. A slice may follow: `rows.jsonl[0:40]`, `tofu:full[-40:]`.
        required: columns that every row must have. `question` and `prompt`, and `answer` and `response`, stand for each
            other: the column gets the name that is asked for here.
        split: split of a folder or hub data set, or the value of the rows' own `split` column.

    Returns:
        The rows with a column `id` of texts: the source's own, or the row's number in the source counted from 0 (a
        slice keeps the numbers). Other columns are kept as they are.

    Raises:
        UsageError: the source does not exist, cannot be read or reached, or holds no rows.
        RowError: a row is broken; the error names file, line (for Parquet, folders and the hub: the row's number
            counted from 1) and column.
    """
    text = os.fspath(source)
    if not text:
        raise UsageError("no data set is named: give a file, a folder, tofu:NAME or a hub name")
    match = None if _exists(text) else _SLICE.fullmatch(text)
    name = match["source"] if match else text
    loaded = _load(name, split)
    dataset = check_rows(loaded.dataset, required=required, name=name, places=loaded.places)
    if split is not None and not loaded.split_done:
        dataset = _filter_split(dataset, split, name)
    if match:
        window = slice(*(int(match[end]) if match[end] else None for end in ("start", "stop")))
        chosen = range(*window.indices(len(dataset)))
        if not chosen:
            raise UsageError(f"{text} holds no rows: {name} has {len(dataset)}")
        dataset = dataset.select(chosen)
    return dataset


def check_rows(
    dataset: Dataset,
    *,
    required: Sequence[str] = (),
    name: str = "the rows",
    places: Sequence[tuple[str, int]] | None = None,
) -> Dataset:
    """Check the rows of a data set as `read_rows` does, for data sets made in Python.

    Args:
        dataset: the rows.
        required: columns that every row must have, under either of their names (see `read_rows`).
        name: what errors call the data set.
        places: file and line of each row; without it errors give `name` and the row's number, counted from 1.

    Returns:
        The rows with a text column `id`, and with the required columns under the required names.

    Raises:
        UsageError: there are no rows.
        RowError: a column is missing, a value is missing or of the wrong type, or two rows have the same id.
    """
    if not len(dataset):
        raise UsageError(f"{name} holds no rows")
    places = places or [(name, number) for number in range(1, len(dataset) + 1)]
    original: dict[str, str] = {}
    for column in required:
        alias = _ALIASES.get(column, column)
        if column not in dataset.column_names and alias in dataset.column_names and alias not in required:
            dataset, original[column] = dataset.rename_column(alias, column), alias
    for column in required:
        if column not in dataset.column_names:
            raise RowError(*places[0], column, f"is missing; {nearest(column, dataset.column_names)}")
    schema = schema_for(dataset.column_names, required)
    for (file, line), row in zip(places, iterate(dataset), strict=True):
        check_row(row, schema, required=required, file=file, line=line, names=original)
    return _with_ids(dataset, places)


def read_lines(path: str | os.PathLike[str]) -> list[str]:
    """The lines of a UTF-8 text file (or .gz), stripped, without blank ones: for instance ways to say "I don't know".

    Raises:
        UsageError: the file does not exist, cannot be read, or has no text.
        RowError: a line is not UTF-8.
    """
    data = _read_bytes(Path(path))
    lines = []
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        try:
            lines.append(line.decode("utf-8").strip())
        except UnicodeDecodeError:
            raise RowError(str(path), number, None, "the line is not UTF-8: save the file as UTF-8") from None
    if not any(lines):
        raise UsageError(f"{path} holds no lines")
    return [line for line in lines if line]


def _exists(text: str) -> bool:
    return Path(text).expanduser().exists()


def _load(source: str, split: str | None) -> _Loaded:
    scheme, colon, rest = source.partition(":")
    path = Path(source).expanduser()
    if colon and not path.exists():
        sources = {entry.name: entry for entry in entry_points(group="demur.row_sources")}
        if scheme in sources:
            return _Loaded(sources[scheme].load()(rest))
        if "/" not in scheme and not source.lower().endswith(_ENDINGS):
            raise UsageError(f"unknown row source {scheme!r} in {source!r}: {nearest(scheme, sources)}")
    if path.is_dir():
        return _load_folder(path, split)
    if path.exists():
        return _load_file(path)
    hub = _HUB.fullmatch(source)
    if hub and not source.lower().endswith(_ENDINGS) and not path.parent.exists():
        return _load_hub(hub["name"], hub["config"], split)
    siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    close = difflib.get_close_matches(path.name, siblings, n=1)
    raise UsageError(f"no such file or folder: {source}{f'; did you mean {path.parent / close[0]}?' if close else ''}")


def _load_file(path: Path) -> _Loaded:
    ending = "".join(path.suffixes[-2:] if path.suffix.lower() == ".gz" else path.suffixes[-1:]).lower()
    if ending == ".parquet":
        return _Loaded(_read_parquet(path))
    parse = PARSERS.get(ending.removesuffix(".gz"))
    if parse is None:
        raise UsageError(f"cannot tell the format of {path}: its name must end in {', '.join(_ENDINGS)}")
    parsed = parse(_read_bytes(path), str(path))
    for row in parsed.rows:
        _place_images(row, path.parent)
    try:
        return _Loaded(dataset_from_rows(parsed.rows), [(str(path), line) for line in parsed.lines])
    except UnicodeEncodeError:
        for row, line in zip(parsed.rows, parsed.lines, strict=True):
            for column, value in row.items():
                if not _encodable([column, value]):
                    problem = "holds half of a surrogate pair, which is no character"
                    raise RowError(str(path), line, ascii(column)[1:-1], problem) from None
        raise


def _place_images(row: dict[str, Any], folder: Path) -> None:
    """Paths of pictures are meant from where the file lies."""
    messages = row["prompt"] if isinstance(row.get("prompt"), list) else []
    contents = [m["content"] for m in messages if isinstance(m, dict) and isinstance(m.get("content"), list)]
    parts = [part for content in contents for part in content if isinstance(part, dict)]
    for holder, name in [(row, "image_path"), *((part, "path") for part in parts)]:
        if isinstance(holder.get(name), str) and holder[name].strip():
            holder[name] = str(folder / Path(holder[name]).expanduser())


def _encodable(value: object) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _read_bytes(path: Path) -> bytes:
    path = path.expanduser()
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UsageError(f"no such file: {path}") from None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error
    if path.suffix.lower() != ".gz":
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"{path} is not a whole gzip file: {error}") from error


def _read_parquet(path: Path) -> Dataset:
    import pyarrow as pa
    import pyarrow.parquet
    from datasets import Dataset

    try:
        table = pa.parquet.read_table(path)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error
    except pa.ArrowException as error:
        raise UsageError(f"{path} is not a whole Parquet file: {error}") from error
    dataset = Dataset(table)
    if "image_path" not in dataset.column_names:
        return dataset
    rows = [{"image_path": value} for value in dataset["image_path"][:]]
    for row in rows:
        _place_images(row, path.parent)
    return dataset.remove_columns("image_path").add_column("image_path", [row["image_path"] for row in rows])


def _load_folder(folder: Path, split: str | None) -> _Loaded:
    import datasets

    if (folder / "dataset_dict.json").is_file() or (folder / "dataset_info.json").is_file():
        try:
            # In memory, so that nothing done to the rows later leaves cache files in this folder.
            found = datasets.load_from_disk(str(folder), keep_in_memory=True)
        except (OSError, ValueError) as error:
            raise UsageError(f"cannot read the data set in {folder}: {error}") from error
        if isinstance(found, datasets.DatasetDict):
            return _Loaded(_choose_split(found, split, str(folder)), split_done=True)
        return _Loaded(found)
    groups: dict[str, list[Path]] = {}
    for file in sorted(path for path in folder.iterdir() if path.name.lower().endswith(_ENDINGS)):
        stem = file.name[: -len(max((e for e in _ENDINGS if file.name.lower().endswith(e)), key=len))]
        shard = _SHARD.fullmatch(stem)
        groups.setdefault(shard["split"] if shard else stem, []).append(file)
    if not groups:
        raise UsageError(f"{folder} holds no data files (names that end in {', '.join(_ENDINGS)})")
    split_done = split in groups
    if not split_done and len(groups) > 1:
        wanted = f"no split {split!r}, only" if split else "several splits:"
        raise UsageError(f"{folder} has {wanted} {', '.join(groups)}; choose one of them")
    files = groups[split] if split is not None and split_done else next(iter(groups.values()))
    parts = [_load_file(file) for file in files]
    if len(parts) == 1:
        return parts[0]._replace(split_done=split_done)
    try:
        joined = datasets.concatenate_datasets([part.dataset for part in parts])
        places = [
            place
            for file, part in zip(files, parts, strict=True)
            for place in part.places or [(str(file), row) for row in range(1, len(part.dataset) + 1)]
        ]
    except ValueError as error:
        raise UsageError(f"the parts {files[0].name} … of {folder} have different columns: {error}") from error
    return _Loaded(joined, places, split_done)


def _load_hub(name: str, config: str | None, split: str | None) -> _Loaded:
    import datasets

    try:
        found = datasets.load_dataset(name, config)
    except Exception as error:  # the hub client raises its own, httpx's and the operating system's errors
        what = f"{name} (configuration {config})" if config else name
        reason = str(error).partition("\n")[0]
        raise UsageError(f"{what} is no file here and could not be had from the hub: {reason}") from error
    return _Loaded(_choose_split(found, split, name), split_done=True)


def _choose_split(found: DatasetDict, split: str | None, name: str) -> Dataset:
    known = [str(key) for key in found]
    if split is None and len(known) == 1:
        return found[known[0]]
    if split not in known:
        wanted = f"no split {split!r}" if split else "several splits"
        raise UsageError(f"{name} has {wanted}: choose one of {', '.join(known)}")
    return found[split]


def _filter_split(dataset: Dataset, split: str, name: str) -> Dataset:
    if "split" not in dataset.column_names:
        raise UsageError(f"{name} has no splits and no column 'split', so split {split!r} cannot be chosen")
    values = dataset["split"][:]
    kept = [row for row, value in enumerate(values) if value == split]
    if not kept:
        raise UsageError(f"{name} has no rows of split {split!r}: {nearest(split, {v for v in values if v})}")
    return dataset.select(kept)


def _with_ids(dataset: Dataset, places: Sequence[tuple[str, int]]) -> Dataset:
    if "id" not in dataset.column_names:
        return dataset.add_column("id", [str(row) for row in range(len(dataset))])
    seen: dict[str, int] = {}
    raw = dataset["id"][:]
    for value, (file, line) in zip(raw, places, strict=True):
        if value is None:
            raise RowError(file, line, "id", "is missing or null, although other rows have one")
        if str(value) in seen:
            raise RowError(file, line, "id", f"{value!r} is also the id of the row in line {seen[str(value)]}")
        seen[str(value)] = line
    if all(isinstance(value, str) for value in raw):
        return dataset
    return dataset.remove_columns("id").add_column("id", list(seen))
