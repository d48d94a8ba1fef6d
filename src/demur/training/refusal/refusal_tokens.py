"""Refusal tokens (Jain et al. 2024, arXiv 2412.06748): the first token of every answer says whether it refuses."""

from __future__ import annotations

import functools
from collections import Counter
from typing import TYPE_CHECKING, Any

from demur.data.builders.refusal_tokens import (
    REFUSAL_TOKENS,
    RefusalTokenConfig,
    refusal_token_config,
    refusal_token_rows,
)
from demur.errors import UsageError
from demur.training.refusal.registry import Lesson, Stage, refusal_method

if TYPE_CHECKING:
    from datasets import Dataset

    from demur.models.language_model import LanguageModel

__all__ = ["add_refusal_tokens", "refusal_tokens"]


@refusal_method("refusal-tokens", paper="2412.06748", columns=("prompt", "response", "label"))
def refusal_tokens(
    lesson: Lesson, *, categories: bool = False, refuse: str = "[refuse]", respond: str = "[respond]"
) -> list[Stage]:
    """Fine-tuning on responses that begin with a token for refusing or for answering, made for the purpose.

    The training settings are those of the Zephyr recipe that the paper names, where the user gives no others.

    Args:
        lesson: rows with `prompt`, `response`, `label`, and `category` for tokens by category. Rows that answer should
            hold look-alikes of the ones that refuse, else the token learns their topic.
        categories: a token for each category that is refused.
        refuse: the token that refuses; of category "x" it is "[refuse:x]".
        respond: the token of an answer.
    """
    config = refusal_token_config(lesson.rows, categories=categories, refuse=refuse, respond=respond)
    rows = refusal_token_rows(lesson.rows, config, lesson.source)
    settings = {"learning_rate": 2e-5, "schedule": "cosine", "warmup": 0.1, "lora_tokens": list(config.tokens)}
    return [
        Stage(
            rows,
            settings=settings,
            prepare=functools.partial(add_refusal_tokens, config=config),
            files={REFUSAL_TOKENS: config.as_json()},
            notes=_notes(rows),
        )
    ]


def add_refusal_tokens(lm: LanguageModel, config: RefusalTokenConfig) -> list[int]:
    """Make each token one new token of the model, its vectors the mean of those that were there.

    Args:
        lm: tokenizer and model are changed.
        config: the tokens.

    Returns:
        Their ids, in the order of `config.tokens`.

    Raises:
        UsageError: the vocabulary has one of them already, or the model is an adapter.
    """
    import peft
    import torch
    from tokenizers import AddedToken

    if isinstance(lm.model, peft.PeftModel):
        raise UsageError(f"{lm.name} is an adapter: merge it into its base before new tokens are added")
    known = lm.tokenizer.get_vocab()
    taken = [token for token in config.tokens if token in known]
    if taken:
        raise UsageError(f"{lm.name} has the token {taken[0]} already: choose others with --option respond=… refuse=…")
    words = len(lm.tokenizer)
    lm.tokenizer.add_tokens([AddedToken(t, special=True, normalized=False) for t in config.tokens], special_tokens=True)
    known = lm.tokenizer.get_vocab()
    ids = [known[token] for token in config.tokens]
    model: Any = lm.model
    if max(ids) >= model.get_input_embeddings().weight.shape[0]:  # some models keep spare rows
        model.resize_token_embeddings(max(ids) + 1, mean_resizing=False)
    with torch.no_grad():
        for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
            if layer is not None:  # tied weights get the same mean twice
                layer.weight[ids] = layer.weight[:words].mean(0)
            if layer is not None and getattr(layer, "bias", None) is not None:
                layer.bias[ids] = layer.bias[:words].mean()
    return ids


def _notes(rows: Dataset) -> list[str]:
    """What kinds of rows there are, and a warning where nothing teaches what need not be refused."""
    labels = Counter(rows["label"][:])
    said = [", ".join(f"{count} rows to {label}" for label, count in sorted(labels.items()))]
    if "category" in rows.column_names:
        pairs = set(zip(rows["label"][:], rows["category"][:], strict=True))
        refused = {c for label, c in pairs if label != "comply" and c is not None}
        alone = sorted(refused - {c for label, c in pairs if label == "comply"})
        if alone:
            said.append(
                f"no row to answer has the category {', '.join(alone)}: without look-alikes the token learns "
                "topics and over-refuses"
            )
    return said
