from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForSequenceClassification

from audits.tiny_world import tokenizer
from demur.audits.fluency import class_probability


def test_the_probability_of_a_class_does_not_depend_on_the_batch() -> None:
    words = tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_labels=3,
        pad_token_id=words.pad_token_id,
    )
    model = LlamaForSequenceClassification(config)
    texts = ["a", "the longer text of the two", "word " * 60]
    first = class_probability(model, words, texts, class_id=1, batch_size=1)
    assert class_probability(model, words, texts, class_id=1, batch_size=3) == pytest.approx(first, abs=1e-5)
    total = sum(class_probability(model, words, texts, class_id=i) for i in range(3))
    assert total == pytest.approx([1, 1, 1], abs=1e-6)
    assert len(class_probability(model, words, [])) == 0
