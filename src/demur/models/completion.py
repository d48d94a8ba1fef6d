"""From plain text to tokens: text that goes on from a prefix, and running text cut into pieces.

Follows MUSE's data as open-unlearning reads them (Shi et al. 2024, arXiv 2407.06460; Dorna et al. 2025, arXiv
2506.12618): no template, the tokenizer's own special tokens, and no end-of-text token added.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from demur.data.batch import Encoded
from demur.data.rows import is_text, question_answer
from demur.errors import UsageError
from demur.models.chat import encode
from demur.models.targets import with_targets

if TYPE_CHECKING:
    from datasets import Dataset

    from demur.models.language_model import LanguageModel

__all__ = ["CHUNK_LENGTH", "encode_chunks", "encode_completion", "encode_rows"]

CHUNK_LENGTH = 2048
"""Tokens in a piece of running text, as MUSE trains on."""


def encode_completion(
    lm: LanguageModel,
    prefixes: Sequence[str],
    texts: Sequence[str],
    ids: Sequence[str] | None = None,
    *,
    max_length: int = CHUNK_LENGTH,
    insert_space: bool = False,
    compat: bool = False,
) -> list[Encoded]:
    """Tokens of each prefix with the text that follows it; the text's tokens are the labels.

    Args:
        lm: gives tokenizer and context length; its template plays no part.
        prefixes, texts: of equal length; an empty prefix makes every token but the first a label.
        ids: names used in messages and carried along; row numbers by default.
        max_length: longest text in tokens; what is beyond is cut off.
        insert_space: put a space between prefix and text.
        compat: take the prefix's own token count as the border, as open-unlearning does, also where the tokenizer
            merges across it. By default a merged token counts as the text's first.

    Returns:
        One `Encoded` a row. A text can come out without any label; scoring it says so.

    Raises:
        UsageError: lengths differ, or a row is longer than the model's context.
    """
    if len(prefixes) != len(texts):
        raise UsageError(f"{len(prefixes)} prefixes but {len(texts)} texts")
    names = [str(i) for i in range(len(texts))] if ids is None else [str(i) for i in ids]
    gap = " " if insert_space else ""
    wholes = _ids(lm, [f"{prefix}{gap}{text}" for prefix, text in zip(prefixes, texts, strict=True)])
    out = []
    for name, front, whole in zip(names, _ids(lm, prefixes), wholes, strict=True):
        border = len(front)
        if not compat and whole[:border] != front:
            border = next((i for i, (a, b) in enumerate(zip(front, whole, strict=False)) if a != b), len(whole))
        whole = whole[: border + max_length]
        if lm.context is not None and len(whole) > lm.context:
            raise UsageError(
                f"row {name!r} takes {len(whole)} tokens, more than the {lm.context} that {lm.name} can read: "
                "shorten or drop it"
            )
        out.append(Encoded(whole, min(border, len(whole)), name))
    return out


def encode_chunks(lm: LanguageModel, texts: Sequence[str], max_length: int = CHUNK_LENGTH) -> list[Encoded]:
    """Texts joined by blank lines and cut into pieces of equal length in tokens.

    Each piece is decoded and tokenised anew, so that it begins with the tokenizer's own beginning-of-text token. A
    piece that no token can be predicted in is left out.

    Args:
        lm: gives tokenizer and context length.
        texts: the texts, in the order in which they are joined.
        max_length: tokens in a piece, special ones apart; at most what the model can read.

    Raises:
        UsageError: nothing is left to learn from.
    """
    special = len(_ids(lm, [""])[0])
    length = max_length if lm.context is None else min(max_length, lm.context - special)
    tokens = lm.tokenizer("\n\n".join(texts), add_special_tokens=False, verbose=False)["input_ids"]
    pieces = [str(lm.tokenizer.decode(tokens[start : start + length])) for start in range(0, len(tokens), length)]
    names = [f"piece {number}" for number in range(len(pieces))]
    out = encode_completion(lm, [""] * len(pieces), pieces, names, max_length=length)
    out = [piece for piece in out if len(piece.input_ids) > piece.first_label]
    if not out:
        raise UsageError("the texts hold fewer than two tokens")
    return out


def encode_rows(lm: LanguageModel, rows: Dataset, chunk_length: int | None = None) -> list[Encoded]:
    """Tokens of rows of either kind: prompts with their answers, or raw texts.

    Args:
        lm: the model that is to read them.
        rows: a prompt and an answer under either of their names, or only `text`. Of an answer's text, `prefill` is
            read before it and is no label; a `target` is the label at each of the answer's positions instead.
        chunk_length: tokens in a piece of raw text, `CHUNK_LENGTH` by default; 0 keeps each text by itself.

    Raises:
        UsageError: the rows are neither, or do not fit into the model's context.
    """
    if is_text(rows):
        if chunk_length == 0:
            return encode_completion(lm, [""] * len(rows), rows["text"][:], rows["id"][:], max_length=10**6)
        return encode_chunks(lm, rows["text"][:], chunk_length or CHUNK_LENGTH)
    prefills = [text or "" for text in rows["prefill"][:]] if "prefill" in rows.column_names else None
    encoded = encode(lm, *question_answer(rows), rows["id"][:], prefills)
    return with_targets(lm, encoded, rows) if "target" in rows.column_names else encoded


def _ids(lm: LanguageModel, texts: Sequence[str]) -> list[list[int]]:
    if not texts:
        return []
    ids: list[list[int]] = lm.tokenizer(
        list(texts), add_special_tokens=True, return_attention_mask=False, return_token_type_ids=False, verbose=False
    )["input_ids"]
    return ids
