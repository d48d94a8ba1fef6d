"""Decoupled refusal training: to refuse at any place of a reply (Yuan et al. 2024, arXiv 2407.09121).

L = -E log P(r | q, r̂_<k) - E sum_t log P(sorry | q, r̂_<t)      (eq. 2), beside imitation on helpful rows.
Both terms are token means over the batch here, as in the authors' code.
"""

from __future__ import annotations

from collections import Counter
from typing import Literal

from demur.data.builders.derta import derta_rows
from demur.training.refusal.registry import Lesson, Stage, refusal_method

__all__ = ["derta"]


@refusal_method("derta", paper="2407.09121", columns=("prompt", "response", "unsafe_response"))
def derta(
    lesson: Lesson,
    *,
    variant: Literal["vanilla", "prefix", "rto", "both"] = "both",
    n_rto: int | None = None,
    n_prefix: int | None = None,
    zero_prefix_every: int = 3,
    prefix_unit: Literal["word", "token"] = "word",
    refusal_token: str | None = None,
    rto_keep_ratio: float = 1.0,
) -> list[Stage]:
    """Refusals after harmful beginnings of random length, and the refusal word at every position of harmful replies.

    Args:
        lesson: rows with `unsafe_response` where something is to be refused.
        variant: "both" is the method; "prefix", "rto" and "vanilla" are its ablations.
        n_rto, n_prefix: instances of each kind; one a triple by default.
        zero_prefix_every: every so manieth prefix is empty; 0 for none.
        prefix_unit: "word" as in the authors' code, or "token", which asks the model's tokenizer.
        refusal_token: the word that refusals begin with; one token of the model. By default the first word of most of
            the rows' refusals.
        rto_keep_ratio: share of the positions that have the refusal word as their label (1, or 0.05 as in the
            authors' script for 8B).
    """

    def pieces(text: str) -> list[str]:
        encoded = lesson.model().tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        starts = [start for start, _ in encoded["offset_mapping"]]
        ends = [*starts[1:], len(text)]
        return [text[start:end] for start, end in zip([0, *starts[1:]], ends, strict=True)]

    rows = derta_rows(
        lesson.rows,
        variant=variant,
        n_rto=n_rto,
        n_prefix=n_prefix,
        zero_prefix_every=zero_prefix_every,
        prefix_unit=prefix_unit,
        refusal_token=refusal_token,
        rto_keep_ratio=rto_keep_ratio,
        seed=lesson.seed,
        pieces=pieces,
    )
    kinds = Counter(rows["kind"][:])
    notes = [f"DeRTa trains on {', '.join(f'{count} {kind}' for kind, count in kinds.items())} rows."]
    words = set(rows["target"][:]) - {None}
    if words:
        (word,) = words
        said = zip(rows["response"][:], rows["kind"][:], strict=True)
        refusals = {text for text, kind in said if kind in ("prefix", "vanilla")}
        others = sum(not text.lstrip().startswith(word) for text in refusals)
        notes.append(f"The refusal word is {word!r}.")
        if others:
            notes.append(
                f"{others} of {len(refusals)} different refusals do not begin with {word!r}: the two kinds of rows "
                "then teach different words at the same place."
            )
    return [Stage(rows, notes=notes)]
