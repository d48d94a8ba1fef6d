"""The tokens of a text that an answer is made to begin with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from demur.models.chat import encode, encode_prompts
from demur.models.engine import Prompt

if TYPE_CHECKING:
    from demur.models.language_model import LanguageModel

__all__ = ["opening_tokens"]


def opening_tokens(lm: LanguageModel, prompts: Sequence[Prompt], openings: Sequence[str]) -> list[list[int]]:
    """What each answer begins with, as tokens that follow its prompt's; for an engine's `prefill`.

    White space at an opening's end is left out: the model writes its own. Where the tokenizer would merge characters
    across the prompt's end, the opening is tokenised by itself, as the model could only go on from there.

    Args:
        lm: gives tokenizer and template.
        prompts, openings: of equal length; an empty opening has no tokens.

    Raises:
        UsageError: lengths differ, or a prompt with its opening does not fit into the model's context.
    """
    begun = [opening.rstrip() for opening in openings]
    fronts = encode_prompts(lm, prompts)
    wholes = encode(lm, prompts, begun)
    out = []
    for front, whole, text in zip(fronts, wholes, begun, strict=True):
        together = whole.input_ids[: len(front)] == front and whole.prompt_length == len(front)
        alone: list[int] = [] if together else lm.tokenizer(text, add_special_tokens=False)["input_ids"]
        out.append((whole.label_ids[:-1] if together else alone) if text else [])
    return out
