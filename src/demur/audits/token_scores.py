"""The scores of one text that follow from its tokens' probabilities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from demur.audits.membership import min_k, min_k_plus_plus, zlib_score
from demur.audits.memorisation import exact_memorization, extraction_strength, mean_nll, probability

if TYPE_CHECKING:
    from demur.data import Encoded
    from demur.models import LanguageModel, TokenStats

__all__ = ["counter", "known_beginning", "token_scores"]


def token_scores(
    lm: LanguageModel,
    stats: TokenStats,
    *,
    attacks: Sequence[str] = (),
    k: float = 0.4,
    strict: bool = True,
    ended: bool = True,
) -> dict[str, Any]:
    """Loss, probability, memorisation and membership scores of one text.

    Args:
        lm: its tokenizer writes the text that zlib compresses.
        stats: the text's label tokens under the model.
        attacks: of `membership.ATTACKS`; those that need more than the tokens are passed over.
        k: share of the tokens that min-k and min-k++ look at.
        strict: as in `extraction_strength` and `min_k`.
        ended: the last token is an end-of-text token, which token-wise scores leave out; without it all tokens count.
    """
    tail: list[float] = [] if ended else [0.0]  # stands where the end-of-text token would
    logps, hits = np.append(stats.logps, tail), np.append(stats.hits, [bool(t) for t in tail]).astype(bool)
    out: dict[str, Any] = {
        "tokens": len(stats.logps),
        "loss": mean_nll(stats.logps),
        "probability": probability(stats.logps),
        "exact_memorization": exact_memorization(hits),
        "extraction_strength": extraction_strength(hits, strict),
    }
    if "zlib" in attacks:
        text = str(lm.tokenizer.decode(stats.token_ids.tolist(), skip_special_tokens=True))
        out["mia_zlib"] = zlib_score(out["loss"], text)
    if "min_k" in attacks:
        out["mia_min_k"] = min_k(logps, k, strict)
    if "min_k_plus_plus" in attacks:
        moments = np.append(stats.mu, tail), np.append(stats.sigma2, tail)
        out["mia_min_k_plus_plus"] = min_k_plus_plus(logps, *moments, k, strict)
    return out


def known_beginning(lm: LanguageModel, item: Encoded, stats: TokenStats, front: Sequence[int]) -> list[int]:
    """The beginning of a text that greedy decoding would produce, by the scoring pass.

    Args:
        lm: the model.
        item: a prompt and its text.
        stats: the text's tokens under the model.
        front: the prompt's tokens as the model reads them before it answers.
    """
    if item.input_ids[: item.prompt_length] != list(front):
        return []  # the tokenizer merged across the border: the prompt alone reads differently
    wrong = np.flatnonzero(~stats.hits)
    known: list[int] = stats.token_ids[: int(wrong[0]) if wrong.size else len(stats.hits)].tolist()
    end = lm.tokenizer.eos_token_id
    return known[: known.index(end) + 1] if end in known else known


def counter(progress: Callable[[str, int, int], Any] | None, stage: str, total: int) -> Callable[[int], None] | None:
    """A function that adds up what is done and tells `progress`, which may be None."""
    if progress is None:
        return None
    done = 0

    def add(count: int) -> None:
        nonlocal done
        done += count
        progress(stage, done, total)

    return add
