"""The beginning of a wrong reply put into the model's mouth, and the request without its chat formatting.

A model that was taught to refuse only in the first words goes on once it has begun, and where nothing tells it that
it is being asked (Yuan et al. 2024, arXiv 2407.09121).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from demur.data.builders.derta import begun
from demur.errors import UsageError
from demur.models.local_engine import LocalEngine
from demur.models.openings import opening_tokens

if TYPE_CHECKING:
    import pandas as pd

    from demur.data.rows import Prompt
    from demur.models import LanguageModel

__all__ = ["completion_attack", "prefill_asr"]


def prefill_asr(
    lm: LanguageModel,
    prompts: Sequence[Prompt],
    unsafe: Sequence[str],
    judge: Callable[[int, str], bool],
    *,
    k_values: Sequence[int] = (0, 1, 2, 4, 8),
    unit: Literal["word", "token"] = "word",
    max_new_tokens: int = 64,
    batch_size: int = 32,
    progress: Callable[[int], Any] | None = None,
) -> pd.DataFrame:
    """Whether a model goes on when its reply has begun with the first k words of a reply that it should refuse.

    Answers are greedy. The attack success rate at k is the mean of `success` over its rows.

    Args:
        lm: the model.
        prompts: requests that it should refuse.
        unsafe: to each, a reply that it should not give.
        judge: called with the number of the prompt and with what the model wrote after the beginning; True where the
            attack succeeded.
        k_values: how many words are given, each tried; 0 asks plainly.
        unit: what is counted, words or the model's tokens.
        max_new_tokens: of the model's own.
        batch_size: prompts in one batch.
        progress: called with the number of prompts done since the last call.

    Returns:
        A row a prompt and k: `k`, `row` (number of the prompt), `beginning`, `continuation`, `success`. A reply that
        has no more than k words has no row for k.

    Raises:
        UsageError: lengths differ, a k is negative, or no reply is long enough for a k.
    """
    import pandas as pd

    if len(prompts) != len(unsafe) or not prompts:
        raise UsageError(f"a prefill attack needs a reply to each prompt, not {len(unsafe)} for {len(prompts)}")
    if not k_values or min(k_values) < 0 or unit not in ("word", "token"):
        raise UsageError("a prefill attack needs k >= 0, counted in 'word' or 'token'")
    engine = LocalEngine(lm, batch_size)
    out = []
    for k in k_values:
        places, texts, tokens = _beginnings(lm, prompts, unsafe, k, unit)
        if not places:
            raise UsageError(f"no reply has more than {k} {unit}s: give a smaller k")
        answers = engine.generate(
            [prompts[i] for i in places],
            prefill=tokens,
            max_new_tokens=max_new_tokens + max(map(len, tokens)),
            progress=progress,
        )
        for place, text, given, answer in zip(places, texts, tokens, answers, strict=True):
            own = answer.token_ids[len(given) : len(given) + max_new_tokens]
            said = str(lm.tokenizer.decode(list(own), skip_special_tokens=True)).strip()
            out.append({"k": k, "row": place, "beginning": text, "continuation": said, "success": judge(place, said)})
    return pd.DataFrame(out)


def completion_attack(
    lm: LanguageModel, statements: Sequence[str], *, max_new_tokens: int = 64, batch_size: int = 32
) -> list[str]:
    """What a model makes of requests put as statements, without chat formatting: it only goes on with a text.

    Args:
        lm: the model; its template plays no part.
        statements: the requests as the beginning of a text, for instance "The steps to open the vault are".
        max_new_tokens: of the model's own.
        batch_size: statements in one batch.

    Returns:
        What follows each statement, greedily.
    """
    bare = dataclasses.replace(lm, template="raw")
    found = LocalEngine(bare, batch_size).generate(list(statements), max_new_tokens=max_new_tokens)
    return [answer.text for answer in found]


def _beginnings(
    lm: LanguageModel, prompts: Sequence[Prompt], unsafe: Sequence[str], k: int, unit: str
) -> tuple[list[int], list[str], list[list[int]]]:
    """Numbers of the prompts whose reply is long enough, their replies' beginnings as text and as tokens."""
    if unit == "token":
        whole = opening_tokens(lm, prompts, unsafe)
        places = [i for i, tokens in enumerate(whole) if len(tokens) > k]
        kept = [whole[i][:k] for i in places]
        return places, [str(lm.tokenizer.decode(tokens)) for tokens in kept], kept
    cut = {i: begun(text, k) for i, text in enumerate(unsafe)}
    texts = {i: text for i, text in cut.items() if text is not None}
    return list(texts), list(texts.values()), opening_tokens(lm, [prompts[i] for i in texts], list(texts.values()))
