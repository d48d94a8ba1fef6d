"""MUSE, unlearning news and books (Shi et al. 2024, arXiv 2407.06460): reading its sets, and its layout for any text.

A corpus has the configurations `raw` (what is forgotten and kept), `verbmem` (beginnings and how they go on),
`knowmem` (questions), `privleak` (texts for membership inference), `scal` (growing forget sets) and `sust` (forget
sets that are asked for one after another).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from demur.data.columns import dataset_from_rows
from demur.data.readers import check_rows, read_rows
from demur.data.writers import write_rows
from demur.errors import RowError, UnknownNameError, UsageError
from demur.files import atomic_directory
from demur.registry import nearest

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["CONFIGS", "CORPORA", "FOLDS", "completion_rows", "corpus_sets", "muse_corpus", "muse_split", "write_muse"]

CORPORA = {"News": "muse-bench/MUSE-News", "Books": "muse-bench/MUSE-Books"}
"""The benchmark's corpora and where they lie on the hub."""

CONFIGS: Mapping[str, tuple[str, ...]] = {
    "raw": ("text",),
    "privleak": ("text",),
    "scal": ("text",),
    "sust": ("text",),
    "verbmem": ("prompt", "gt"),
    "knowmem": ("question", "answer"),
}
"""Configuration → columns of its rows."""

FOLDS = 4
"""Forget sets in `scal` and in `sust`."""

_LEAST = 2  # words that a text needs to have a beginning and an end


def muse_source(name: str) -> Dataset:
    """What `muse:NAME` means to `read_rows`: CORPUS:CONFIGURATION:SET, for instance `News:raw:forget`.

    CORPUS is `News` or `Books`, taken from the folder `muse` in `$DEMUR_SHARED_DATA` or from the hub, or any folder in
    MUSE's layout.

    Raises:
        UsageError: the name has not three parts, or the set cannot be read.
    """
    parts = name.rsplit(":", 2)
    if len(parts) != 3:
        raise UsageError(
            f"muse:{name} is no set of MUSE: write muse:CORPUS:CONFIGURATION:SET, as in muse:News:raw:forget"
        )
    return muse_split(*parts)


def muse_corpus(source: str | None) -> str | None:
    """The corpus that a row source belongs to, with its prefix: `muse:News` for `muse:News:raw:forget`; None for other
    sources."""
    match = re.fullmatch(r"(muse:.+):[^:]+:[^:]+", source or "")
    return match[1] if match else None


def muse_split(corpus: str | os.PathLike[str], config: str, split: str) -> Dataset:
    """One set of a corpus.

    Args:
        corpus: `News`, `Books`, or a folder that holds a folder for each configuration, with one file for each set
            (any format that `read_rows` knows, or a JSON list of texts, as MUSE's own code keeps them).
        config: a key of `CONFIGS`.
        split: for instance `forget`, `retain1`, `holdout`, `forget_qa`, `forget_qa_icl`, `forget_2`.

    Raises:
        UnknownNameError: there is no such configuration or set.
        UsageError: the corpus is not there.
        RowError: a row is broken.
    """
    if config not in CONFIGS:
        raise UnknownNameError(f"MUSE has no configuration {config!r}: {nearest(config, CONFIGS)}")
    required, folder = CONFIGS[config], _folder(str(corpus))
    if folder is None:
        rows = read_rows(f"{CORPORA[_name(str(corpus))]}:{config}", required=required, split=split)
        return _checked(rows, required, f"muse:{corpus}:{config}:{split}")
    place = folder / config
    if not place.is_dir():
        there = [c for c in CONFIGS if (folder / c).is_dir()]
        raise UsageError(
            f"{folder} has no folder {config}: {'it has ' + ', '.join(there) if there else 'it is no MUSE corpus'}"
        )
    texts = _list_of_texts(place / f"{split}.json") if required == ("text",) else None
    if texts is not None:
        return check_rows(dataset_from_rows(texts), required=required, name=str(place / f"{split}.json"))
    known = _sets(place)
    if split not in known:
        raise UnknownNameError(f"{place} has no set {split!r}: {nearest(split, known)}")
    return _checked(read_rows(place, required=required, split=split), required, str(place / split))


_MEASURED = {
    "forget_knowmem": "knowmem:forget_qa",
    "forget_knowmem_icl": "knowmem:forget_qa_icl",
    "retain_knowmem": "knowmem:retain_qa",
    "retain_knowmem_icl": "knowmem:retain_qa_icl",
    "forget_verbmem": "verbmem:forget",
    "retain_verbmem": "verbmem:retain",
    "holdout_verbmem": "verbmem:holdout",
    "forget": "privleak:forget",
    "holdout": "privleak:holdout",
}
_BEYOND = ("retain_verbmem", "holdout_verbmem")  # not in MUSE's own corpora


def corpus_sets(corpus: str) -> dict[str, str]:
    """What an audit measures on a corpus: name of the set → row source, of the sets that the corpus has.

    Args:
        corpus: with its prefix, as `muse_corpus` gives it.

    Raises:
        UsageError: the corpus is not there.
    """
    folder = _folder(corpus.removeprefix("muse:"))
    if folder is None:
        return {name: f"{corpus}:{place}" for name, place in _MEASURED.items() if name not in _BEYOND}
    out = {}
    for name, place in _MEASURED.items():
        config, _, split = place.partition(":")
        if split in _sets(folder / config):
            out[name] = f"{corpus}:{place}"
    return out


def _sets(place: Path) -> set[str]:
    """Names of the sets in a configuration's folder; `forget-00000-of-00002.parquet` is a part of `forget`."""
    stems = {file.name.partition(".")[0] for file in place.iterdir()} if place.is_dir() else set()
    return {re.sub(r"-\d{5}-of-\d{5}$", "", stem) for stem in stems}


def _name(corpus: str) -> str:
    name = corpus.capitalize()
    if name not in CORPORA:
        raise UsageError(
            f"no MUSE corpus {corpus!r}: {nearest(corpus, CORPORA)} A folder in MUSE's layout serves as well"
        )
    return name


def _folder(corpus: str) -> Path | None:
    """The folder of a corpus; None where the hub is to be asked."""
    path = Path(corpus).expanduser()
    if path.is_dir():
        return path
    shared = os.environ.get("DEMUR_SHARED_DATA")
    found = Path(shared) / "muse" / _name(corpus) if shared else None
    return found if found and found.is_dir() else None


def _list_of_texts(file: Path) -> list[dict[str, str]] | None:
    """A JSON list of texts as rows; None where the file is something else."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        return None
    return [{"text": text} for text in found]


def _checked(rows: Dataset, required: Sequence[str], name: str) -> Dataset:
    for column in required:
        for line, value in enumerate(rows[column][:], start=1):
            if not isinstance(value, str) or not value.strip():
                raise RowError(name, line, column, f"must be text, not {value!r}")
    return rows


def completion_rows(rows: Dataset, share: float = 0.5) -> Dataset:
    """Texts as MUSE's `verbmem` has them: a beginning to prompt with, and how the text goes on.

    Args:
        rows: rows with a `text` of at least two words.
        share: share of a text's words that become the prompt.

    Returns:
        Rows with id, prompt and gt; a single space between the two is in neither.

    Raises:
        RowError: a text has no place to be parted at.
    """
    out = []
    for number, (name, text) in enumerate(zip(rows["id"][:], rows["text"][:], strict=True), start=1):
        gaps = [match.start() for match in re.finditer(r"(?<=\S) (?=\S)", text)]
        if not gaps:
            raise RowError("the texts", number, "text", f"has fewer than {_LEAST} words with a space between them")
        place = gaps[min(len(gaps) - 1, max(0, round(share * (len(gaps) + 1)) - 1))]
        out.append({"id": name, "prompt": text[:place], "gt": text[place + 1 :]})
    return dataset_from_rows(out)


def write_muse(
    folder: str | os.PathLike[str],
    forget: Dataset,
    retain: Dataset,
    holdout: Dataset,
    *,
    forget_qa: Dataset | None = None,
    retain_qa: Dataset | None = None,
    shots: int = 5,
    share: float = 0.5,
) -> Path:
    """Put texts of one's own into MUSE's layout, one JSONL file a set.

    `retain1` and `retain2` are the halves of the retain texts. Beyond MUSE, `verbmem` has also `retain` and `holdout`.
    The last `shots` questions of each set become its in-context examples.

    Args:
        folder: is replaced as a whole.
        forget, retain, holdout: rows with a `text`; the hold-out texts are never to be trained on.
        forget_qa, retain_qa: questions about the texts.
        shots: in-context examples.
        share: share of a text's words that `verbmem` prompts with.

    Returns:
        The folder.

    Raises:
        UsageError: there are fewer than four forget texts, fewer than two retain texts, or no more questions than
            in-context examples.
        RowError: a text is too short to be parted.
    """
    if len(forget) < FOLDS or len(retain) < 2:
        raise UsageError(
            f"MUSE's layout needs {FOLDS} forget texts and 2 retain texts, not {len(forget)} and {len(retain)}"
        )
    half = len(retain) // 2
    texts = {"forget": forget, "retain": retain, "holdout": holdout}
    sets: dict[str, Dataset] = {
        "raw/forget": forget,
        "raw/retain1": retain.select(range(half)),
        "raw/retain2": retain.select(range(half, len(retain))),
        "raw/holdout": holdout,
        **{f"privleak/{name}": rows for name, rows in texts.items()},
        **{f"verbmem/{name}": completion_rows(rows, share) for name, rows in texts.items()},
    }
    bounds = [round(len(forget) * fold / FOLDS) for fold in range(FOLDS + 1)]
    for fold in range(1, FOLDS + 1):
        sets[f"scal/forget_{fold}"] = forget.select(range(bounds[fold]))
        sets[f"sust/forget_{fold}"] = forget.select(range(bounds[fold - 1], bounds[fold]))
    for name, questions in (("forget_qa", forget_qa), ("retain_qa", retain_qa)):
        if questions is not None:
            if len(questions) <= shots:
                raise UsageError(f"{len(questions)} questions leave none beside {shots} in-context examples")
            sets[f"knowmem/{name}"] = questions.select(range(len(questions) - shots))
            sets[f"knowmem/{name}_icl"] = questions.select(range(len(questions) - shots, len(questions)))
    with atomic_directory(folder) as temporary:
        for name, rows in sets.items():
            (temporary / name).parent.mkdir(exist_ok=True)
            write_rows(temporary / f"{name}.jsonl", rows.select_columns(["id", *CONFIGS[name.partition("/")[0]]]))
    return Path(folder)
