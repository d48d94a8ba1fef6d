"""DeRTa's rows: refusals that begin anywhere in a reply (Yuan et al. 2024, arXiv 2407.09121).

A row with an unsafe response r̂ beside its safe one r gives two kinds of instances: r after the first words of r̂; and
r̂, with the refusal word as the label at each of its positions and at its end.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from demur.data.columns import dataset_from_rows
from demur.data.rows import iterate, question_answer
from demur.errors import UsageError

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["begun", "derta_rows"]

Variant = Literal["vanilla", "prefix", "rto", "both"]
Row = dict[str, Any]

_KINDS = {"vanilla": ("vanilla",), "prefix": ("prefix",), "rto": ("vanilla", "rto"), "both": ("prefix", "rto")}
_SHORTEST = 3
"""Words or tokens that a response must have to be cut: one is read, at least two are not."""


def derta_rows(
    rows: Dataset,
    *,
    variant: Variant = "both",
    n_rto: int | None = None,
    n_prefix: int | None = None,
    zero_prefix_every: int = 3,
    prefix_unit: Literal["word", "token"] = "word",
    refusal_token: str | None = None,
    rto_keep_ratio: float = 1.0,
    seed: int = 0,
    pieces: Callable[[str], Sequence[str]] | None = None,
) -> Dataset:
    """What DeRTa trains on.

    A row with an `unsafe_response` is a triple, unless its `label` is "comply"; all others are trained on as they are.

    Args:
        rows: prompts with responses, and `unsafe_response` where what was asked for should be refused.
        variant: "both" is the method; "prefix" and "rto" are its halves, the latter beside plain refusals; "vanilla" is
            plain safety tuning.
        n_rto, n_prefix: instances of each kind, the triples taken in turn; None for one a triple. `n_prefix` is also
            the number of plain refusals.
        zero_prefix_every: every so manieth prefix is empty, which makes a plain refusal of it; 0 for none, 1 for all.
        prefix_unit: what prefixes are counted in.
        refusal_token: the word that is the label at each position of an unsafe response; None for the one that most of
            the triples' safe responses begin with.
        rto_keep_ratio: share of these positions that have a label, in (0, 1]; at least one does.
        seed: decides the prefixes.
        pieces: cuts a text into pieces that make it up again; needed for the unit "token".

    Returns:
        Rows with `id`, `prompt`, `response`, `prefill`, `target`, `target_share` and `kind` (helpful, vanilla, prefix
        or rto). Responses too short to be cut give no prefix instance, except an empty one.

    Raises:
        UsageError: an option is out of range, there is no triple, or a row labelled refuse has no unsafe response.
    """
    if variant not in _KINDS:
        raise UsageError(f"variant must be one of {', '.join(_KINDS)}, not {variant!r}")
    if prefix_unit not in ("word", "token") or (prefix_unit == "token" and pieces is None):
        raise UsageError("prefix_unit must be 'word', or 'token' with a tokenizer to cut texts")
    if not 0 < rto_keep_ratio <= 1:
        raise UsageError(f"rto_keep_ratio must be above 0 and at most 1, not {rto_keep_ratio}")
    if zero_prefix_every < 0 or any(n is not None and n < 1 for n in (n_rto, n_prefix)):
        raise UsageError("n_rto and n_prefix must be at least 1, and zero_prefix_every at least 0")
    triples, helpful = _parted(rows)
    word = refusal_token or _first_word(triples)
    rng = random.Random(seed)
    out = [{**row, "kind": "helpful"} for row in helpful]
    for kind in _KINDS[variant]:
        count = n_rto if kind == "rto" else n_prefix
        drawn = [triples[i % len(triples)] for i in range(len(triples) if count is None else count)]
        for number, triple in enumerate(drawn):
            plain = {k: triple[k] for k in ("prompt", "response")}
            made: Row | None = plain
            if kind == "rto":
                share = rto_keep_ratio if rto_keep_ratio < 1 else None
                made = {**plain, "response": triple["unsafe"], "target": word, "target_share": share}
            elif kind == "prefix" and not (zero_prefix_every and number % zero_prefix_every == 0):
                made = _after_prefix(triple, rng, pieces if prefix_unit == "token" else None)
            if made is not None:
                out.append({"id": f"{kind}-{number}-{triple['id']}", **made, "kind": kind})
    columns = ("id", "prompt", "response", "prefill", "target", "target_share", "kind")
    return dataset_from_rows([{column: row.get(column) for column in columns} for row in out])


def begun(text: str, count: int, pieces: Callable[[str], Sequence[str]] | None = None) -> str | None:
    """The first words of a text, or its first pieces; None where it has no more than that.

    Args:
        text: what is cut.
        count: how many words (parted by spaces) or pieces are taken.
        pieces: cuts a text into pieces that make it up again.
    """
    parts = text.split() if pieces is None else list(pieces(text))
    if len(parts) <= count:
        return None
    return ("" if pieces else " ").join(parts[:count])


def _parted(rows: Dataset) -> tuple[list[Row], list[Row]]:
    """Triples, and rows to train on as they are."""
    if "unsafe_response" not in rows.column_names:
        raise UsageError(
            "the rows have no column 'unsafe_response': DeRTa learns from replies that should have stopped"
        )
    triples, helpful = [], []
    for number, (row, prompt, response) in enumerate(zip(iterate(rows), *question_answer(rows), strict=True)):
        plain = {"id": str(row.get("id", number)), "prompt": prompt, "response": response}
        unsafe, label = row["unsafe_response"], row.get("label")
        if label == "refuse" and not (unsafe or "").strip():
            raise UsageError(f"row {plain['id']!r} is labelled refuse and has no unsafe_response")
        if unsafe is None or label == "comply":
            helpful.append(plain)
        else:
            triples.append({**plain, "unsafe": unsafe})
    if not triples:
        raise UsageError("no row has an unsafe_response beside its response: there is nothing to refuse")
    return triples, helpful


def _first_word(triples: Sequence[Row]) -> str:
    found = (re.match(r"\W*(\w+)", triple["response"] or "") for triple in triples)
    words = Counter(match[1] for match in found if match)
    if not words:
        raise UsageError("no safe response has a word in it: there is nothing to refuse with")
    return words.most_common(1)[0][0]


def _after_prefix(triple: Row, rng: random.Random, pieces: Callable[[str], Sequence[str]] | None) -> Row | None:
    """The safe response after 1 to n - 2 words of the unsafe one; None where that is too short."""
    unsafe = triple["unsafe"]
    count = len(unsafe.split() if pieces is None else pieces(unsafe))
    if count < _SHORTEST:
        return None
    prefix = begun(unsafe, rng.randint(1, count - 2), pieces)
    gap = "" if prefix and prefix[-1].isspace() else " "
    return {"prompt": triple["prompt"], "prefill": f"{prefix}{gap}", "response": triple["response"]}
