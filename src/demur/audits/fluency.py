"""Do a model's answers still read like language: the probability that a text classifier calls them clean.

Source: OpenUnlearning (arXiv 2506.12618), which uses a gibberish classifier from the hub and its class 0, "clean".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["class_probability"]


def class_probability(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    class_id: int = 0,
    max_length: int = 32,
    batch_size: int = 32,
) -> NDArray[np.float64]:
    """Probability of one class for each text.

    Args:
        model: a sequence classifier, for instance `AutoModelForSequenceClassification`.
        tokenizer: its tokenizer, with a pad token.
        texts: what to judge.
        class_id: the class whose probability is returned.
        max_length: longer texts are cut to this many tokens.
        batch_size: texts in one forward pass.

    Returns:
        (texts,) probabilities.
    """
    import torch

    model.eval()
    parts = [np.empty(0)]
    for start in range(0, len(texts), batch_size):
        batch = tokenizer(
            list(texts[start : start + batch_size]),
            padding=True,
            truncation=True,
            max_length=max_length,
            return_tensors="pt",
        ).to(model.device)
        with torch.no_grad():
            logits = model(**batch).logits.float()
        parts.append(logits.softmax(dim=-1)[:, class_id].double().cpu().numpy())
    return np.concatenate(parts)
