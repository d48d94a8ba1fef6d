"""Labels that are not the answer's own tokens: one word as the label at every position of an answer."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from demur.data.batch import IGNORE, Encoded
from demur.errors import UsageError
from demur.models.chat import encode

if TYPE_CHECKING:
    from datasets import Dataset

    from demur.models.language_model import LanguageModel

__all__ = ["first_token", "with_targets"]


def first_token(lm: LanguageModel, word: str) -> int:
    """The token that an answer begins with when its first word is `word`.

    Raises:
        UsageError: the tokenizer splits the word.
    """
    (item,) = encode(lm, [""], [word])
    ids = item.label_ids[:-1]
    if len(ids) != 1:
        raise UsageError(
            f"the target {word!r} is {len(ids)} tokens for {lm.name}, not one: choose a word that answers begin with"
        )
    return ids[0]


def with_targets(lm: LanguageModel, encoded: Sequence[Encoded], rows: Dataset) -> list[Encoded]:
    """The sequences with the rows' targets as labels (Yuan et al. 2024, arXiv 2407.09121, eq. 2, second term).

    The inputs stay as they are. The label at each position of the answer, and where it ends, is the target's token.

    Args:
        lm: gives the tokenizer.
        encoded: one sequence a row.
        rows: `target`, a word or null, and perhaps `target_share`, the share of positions that keep their label; at
            least one does, drawn from the row's id.

    Raises:
        UsageError: a target is more than one token, or a share is not in (0, 1].
    """
    words = rows["target"][:]
    shares = rows["target_share"][:] if "target_share" in rows.column_names else [1.0] * len(words)
    tokens = {word: first_token(lm, word) for word in dict.fromkeys(words) if word is not None}
    out = []
    for item, word, share in zip(encoded, words, shares, strict=True):
        if word is None:
            out.append(item)
            continue
        share = 1.0 if share is None else share
        if not 0 < share <= 1:
            raise UsageError(f"row {item.id!r}: target_share must be above 0 and at most 1, not {share}")
        places = range(len(item.label_ids))
        kept = set(random.Random(item.id).sample(places, max(1, round(share * len(places)))))
        out.append(replace(item, targets=tuple(tokens[word] if i in kept else IGNORE for i in places)))
    return out
